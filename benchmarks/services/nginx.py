"""Starts an nginx of one worker in a folder of its own; both the peer and the origin are one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import needed, pinned
from tests.testbeds.processes import Program

_CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    keepalive_timeout 75s;
    tcp_nodelay on;
{block}
}}
"""


@contextlib.contextmanager
def run_nginx(folder: Path, core: int, port: int, block: str) -> Iterator[Program]:
    """nginx on one core with this inside its `http` block, accepting connections on that port."""
    binary = needed("nginx", "apt-get install nginx-light")
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, block=block))
    command: list[str | Path] = [binary, "-p", folder, "-c", config, "-e", folder / "error.log"]
    with Program(pinned(core, command), name="nginx") as program:
        program.wait_for_port(port)
        yield program
