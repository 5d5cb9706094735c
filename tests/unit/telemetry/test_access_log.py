"""A line of the access log: what it tells of a request, and of who asked."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.kafka.calls import make_request

from castlegate.edge.exchange import Exchange
from castlegate.edge.framing import Fields
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Request, Response
from castlegate.routing.route import Route
from castlegate.telemetry.access_log import AccessLog
from castlegate.telemetry.metrics import Registry


class Somebody(NamedTuple):
    subject: str
    scheme: str


async def answer(_request: Request) -> Response:
    return Response(200)


def line(folder: Path, caller: Somebody | None, query: bytes = b"") -> dict[str, Any]:
    """What is logged of a request that failed."""
    path, registry = folder / "access.log", Registry()
    log = AccessLog.open(str(path), ["token"], registry.counter("dropped_total", "").child())
    assert log is not None
    request, fields = make_request(), Fields(b"", b"1")
    request.query = query
    fields.log_client = b"192.0.2.1"
    exchange = Exchange(request, Route("POST /", answer, 0, registry), answer, fields, keep_alive=True)
    exchange.status, exchange.sent = 504, 321
    exchange.error = CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN)
    log.write(exchange, 12, 0.25, caller)
    log.writer.close()
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_it_tells_of_the_request_and_of_its_end(tmp_path: Path) -> None:
    told = line(tmp_path, None, b"a=1&token=x")
    assert told.pop("time").endswith("Z")
    assert told == {
        "id": "6f1c3d5e7a9b0c2d4e6f8a0b1c2d3e4f", "trace": "4bf92f3577b34da6a3ce929d0e0e4736", "client": "192.0.2.1",
        "method": "POST", "host": "gateway", "path": "/", "query": "a=1&token=[redacted]", "route": "POST /",
        "status": 504, "error": "timeout", "outcome": "unknown", "bytes_in": 12, "bytes_out": 321, "ms": 250.0,
        "agent": "",
    }  # fmt: skip


@pytest.mark.parametrize("subject", ["jo", 'jo "the\nfirst"', "J\u00f6rg\u2028", ""])
def test_who_asked_is_named_where_it_is_known(tmp_path: Path, subject: str) -> None:
    told = line(tmp_path, Somebody(subject, "jwt"))
    assert (told["principal"], told["auth"]) == (subject, "jwt")


@pytest.mark.parametrize(
    ("query", "logged"),
    [
        (b"token=a;b=1", "token=[redacted]"),
        (b"a=1;token=x;b=2&c=3", "a=1;token=[redacted]&c=3"),
        (b"a;%74oken=x", "a;%74oken=[redacted]"),
        (b"a=1;b=2", "a=1;b=2"),
    ],
)
def test_no_secret_is_written_where_semicolons_stand_between(tmp_path: Path, query: bytes, logged: str) -> None:
    assert line(tmp_path, None, query)["query"] == logged
