"""The command line: reads arguments, calls what does the work, says what went wrong."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from castlegate import __version__
from castlegate.cli.demo import DemoFailed
from castlegate.cli.demo import run as run_demo
from castlegate.config.report import ConfigError
from castlegate.document import load
from castlegate.server.supervisor import run as serve
from castlegate.upstreams.kafka.settings import EMBEDDED

_CONFIG = click.argument("config", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="castlegate")
def main() -> None:
    """castlegate: one entry point in front of services that speak Kafka or HTTP.

    A configuration file names the services and the routes; `castlegate check` tells every mistake in it with line and
    column, `castlegate run` serves it.
    """


@main.command()
@_CONFIG
def run(config: Path) -> None:
    """Serve the routes of CONFIG.

    SIGTERM and Ctrl-C finish what is in flight, for at most `drain`, and exit with 0. A mistake in CONFIG exits with 2,
    an address that cannot be had with 1.
    """
    try:
        sys.exit(serve(config))
    except ConfigError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(error.strerror or str(error), 1)


@main.command()
@_CONFIG
def check(config: Path) -> None:
    """Tell every mistake in CONFIG; needs no network.

    Exits with 0 if there is none, with 2 if there is one. Each is a line of its own:
    FILE:LINE:COLUMN: what was found, what was expected. Warnings, such as of an expired certificate, are no mistakes.
    """
    try:
        document, report = load(config)
    except ConfigError as error:
        _fail(str(error), 2)
    else:
        for warning in report.warnings:
            click.echo(f"{warning} (warning)", err=True)
        click.echo(f"{config}: {len(document.routes)} routes, {len(document.services)} services, no mistakes")


@main.command()
@click.option("--listen", default=EMBEDDED, show_default=True, help="HOST:PORT; port 0 takes a free one.")
def broker(listen: str) -> None:
    """Run the embedded broker on its own, for development and tests.

    It speaks Kafka's protocol, so that any Kafka client can use it, and keeps nothing: what is in it is gone when it
    ends. `bootstrap: embedded` in a configuration starts the same one along with the gateway.
    """
    os.execv(sys.executable, [sys.executable, "-m", "castlegate_broker", "--listen", listen])  # noqa: S606


@main.command()
@click.option("--once", is_flag=True, help="End after the requests; exit with 1 if one of them failed.")
@click.option("--port", default=8080, show_default=True, help="Where the gateway listens; 0 takes a free port.")
def demo(once: bool, port: int) -> None:
    """Run a shop of sample services behind the gateway and show a few requests.

    Starts the embedded broker, three services (plain HTTP, FastStream and, where Node.js is there, NestJS) and the
    gateway, asks each of them something, and stays until Ctrl-C so that you can go on.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(0 if run_demo(port, once=once) else 1)
    except KeyboardInterrupt:
        sys.exit(0)
    except DemoFailed as error:
        _fail(str(error), 1)


def _fail(text: str, status: int) -> None:
    click.echo(text, err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
