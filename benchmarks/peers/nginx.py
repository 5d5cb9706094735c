"""nginx as the peer: a plain proxy with kept-alive connections upstream, two hundred locations, JSON access log."""

import contextlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from benchmarks.api import ROUTES, Route
from benchmarks.measure import SUBJECT_CORE, Running, Subject
from benchmarks.services.nginx import run_nginx
from tests.testbeds.processes import free_port

_PROXY = "proxy_pass http://origin;"


# Bodies go through as they come, as they do through the gateway, not by way of a file.
_STREAMING = """
proxy_buffering off;
proxy_request_buffering off;
proxy_buffer_size 64k;
proxy_buffers 8 64k;
proxy_busy_buffers_size 128k;
client_body_buffer_size 64k;
client_max_body_size 64m;
"""


def nginx(origin_port: int, *, streaming: bool = False) -> Subject:
    """One nginx worker in front of the origin."""
    return Subject("nginx", lambda folder: _start(origin_port, folder, _STREAMING if streaming else ""))


@contextlib.contextmanager
def _start(origin_port: int, folder: Path, more: str) -> Iterator[Running]:
    port = free_port()
    with run_nginx(folder, SUBJECT_CORE, port, more + _http_block(port, origin_port, folder / "access.log")) as program:
        yield Running(f"http://127.0.0.1:{port}", program)


def _http_block(port: int, origin_port: int, log: Path) -> str:
    locations = "\n".join(_locations(name, list(routes)) for name, routes in groupby(ROUTES, lambda r: r.collection))
    return f"""
log_format line escape=json '{{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr",'
    '"method":"$request_method","host":"$host","path":"$uri","query":"$args","status":$status,'
    '"bytes_in":$request_length,"bytes_out":$bytes_sent,"s":$request_time,"agent":"$http_user_agent"}}';
access_log {log} line buffer=64k flush=1s;
upstream origin {{
    server 127.0.0.1:{origin_port};
    keepalive 128;
    keepalive_requests 100000000;
}}
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Host $host;
proxy_set_header X-Request-Id $request_id;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_connect_timeout 1s;
proxy_read_timeout 2s;
add_header X-Request-Id $request_id;
server {{
    listen 127.0.0.1:{port};
    {locations}
    location / {{ return 404; }}
}}
"""


def _locations(name: str, routes: list[Route]) -> str:
    """Placeholders are regular expressions; nested below their collection, only its own are tried."""
    plain = [f"location {'' if route.is_prefix else '= '}{_fixed(route)} {{ {_PROXY} }}"
             for route in _distinct(routes) if route.is_prefix or not route.has_placeholder]  # fmt: skip
    nested = [f"location ~ {_pattern(route)} {{ {_PROXY} }}" for route in _distinct(routes)
              if route.has_placeholder and not route.is_prefix]  # fmt: skip
    below = "\n        ".join(nested)
    return "\n    ".join([*plain, f"location /api/v1/{name}/ {{\n        {below}\n        return 404;\n    }}"])


def _distinct(routes: list[Route]) -> list[Route]:
    """nginx tells methods apart inside a location: one for each path."""
    return list({route.path: route for route in routes}.values())


def _fixed(route: Route) -> str:
    return route.path.partition("{")[0]


def _pattern(route: Route) -> str:
    segments = ["[^/]+" if segment.startswith("{") else segment for segment in route.path.split("/")]
    return "^" + "/".join(segments) + "$"
