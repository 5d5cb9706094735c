"""The HTTP service behind the gateways: 1 KB of JSON with eight header fields, as cheap as can be."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import LOAD_CORE
from benchmarks.services.nginx import run_nginx
from tests.testbeds.processes import free_port

_BODY = '{"blob":"' + "x" * (1024 - 11) + '"}'


@contextlib.contextmanager
def origin(folder: Path) -> Iterator[int]:
    """Run it on the load's core; gives its port."""
    port = free_port()
    # nginx itself writes Server, Date, Content-Type, Content-Length and Connection.
    block = f"""
access_log off;
default_type application/json;
add_header Cache-Control "private, max-age=0";
add_header ETag '"5f2c1a"';
add_header Vary Accept-Encoding;
server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ return 200 '{_BODY}'; }}
}}
"""
    with run_nginx(folder, LOAD_CORE, port, block):
        yield port
