"""A gateway between a raw client and scripted origins."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Origin

Start = Callable[[str], Gateway]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways on configurations, and stops them."""
    running: list[Gateway] = []

    def start(config: str) -> Gateway:
        running.append(Gateway(tmp_path, config))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


@pytest.fixture
def gateway(start: Start, origin: Origin) -> Gateway:
    """Forwards everything under /a, bodies up to 1000 bytes; short timeouts."""
    return start(f"""
listen: {{address: "127.0.0.1:0", timeouts: {{header: 1s, body: 1s, idle: 20s}}}}
services:
  origin: {{http: ["http://127.0.0.1:{origin.port}"]}}
defaults: {{public: true, timeout: 1s, limits: {{body: 1000B}}}}
routes:
  ANY /a/{{rest...}}: {{call: origin}}
  GET /item/{{id}}: {{call: origin, get: "/things/{{path.id}}?full=1"}}
  POST /stripped/{{rest...}}: {{call: origin, strip_prefix: /stripped, add_prefix: /v2}}
  GET /fields: {{call: origin, headers: {{request: {{x-set: "{{query.v}}", cookie: null}}, response: {{x-inner: null}}}}}}
  GET /admin: {{call: origin}}
""")
