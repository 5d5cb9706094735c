"""The command line: reads arguments, calls what does the work, says what went wrong.

What only one command needs is imported when it runs: the others start sooner without.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from castlegate import __version__
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
    FILE:LINE:COLUMN: what was found, what was expected.
    """
    try:
        document = load(config).document
    except ConfigError as error:
        _fail(str(error), 2)
    click.echo(f"{config}: {len(document.routes)} routes, {len(document.services)} services, no mistakes")


@main.command(name="explain")
@_CONFIG
@click.argument("method")
@click.argument("path")
@click.option("--host", default="localhost", show_default=True, help="The Host of the request.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def explain_request(config: Path, method: str, path: str, host: str, as_json: bool) -> None:
    """Tell what becomes of a request METHOD PATH; sends nothing and needs no network.

    Shows the route that CONFIG has for it, the settings that hold and where each was said, every link of the chain that
    the request passes, and what the service would be sent. PATH may have a query. What depends on the rest of the
    request is named by its reference, such as {header.x-tenant}. Where no route is for the request, the nearest ones
    are shown and what keeps them from being it.

    \b
    castlegate explain gateway.yaml GET '/orders/42?page=2'

    Exits with 0 if the request reaches a service, with 1 if the gateway answers itself, with 2 on a mistake in CONFIG.
    """
    from castlegate.explain import explain, to_text

    try:
        told = explain(config, method, path, host)
    except ConfigError as error:
        _fail(str(error), 2)
    click.echo(_json(told) if as_json else to_text(told))
    sys.exit(0 if told.goes_through else 1)


@main.command()
@_CONFIG
@click.option(
    "--timeout", default=5.0, show_default=True, type=click.FloatRange(0.1, 120), help="Seconds for each step."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def doctor(config: Path, timeout: float, as_json: bool) -> None:
    """Reach everything that CONFIG names, and say what is wrong and what to do about it.

    Looks at this machine (open files, log, addresses to listen on), connects to each instance of HTTP services and to
    each Kafka broker, also where the brokers tell clients to go, sees whether the topics that routes need are there and
    permitted, and sends a record through each inbox and back, which gateways that run take for another one's and drop.
    Changes nothing else and creates nothing.

    Exits with 0 if all is well, with 1 if something is wrong, with 2 on a mistake in CONFIG.
    """
    from castlegate.cli.diagnosis import Progress
    from castlegate.doctor.examine import examine

    try:
        with Progress(quiet=as_json) as progress:
            diagnosis = examine(config, timeout, progress.tell)
    except ConfigError as error:
        _fail(str(error), 2)
    if as_json:
        click.echo(_json(diagnosis))
    sys.exit(0 if diagnosis.well else 1)


@main.command()
def schema() -> None:
    """Print the JSON Schema of configuration files, for editors.

    With it an editor completes keys, shows what they mean and marks most mistakes while you type. Editors that use the
    YAML language server find it by a comment in the file's first line:

    \b
    castlegate schema > castlegate.schema.json
    # yaml-language-server: $schema=castlegate.schema.json
    """
    from castlegate.schema import to_text

    click.echo(to_text(), nl=False)


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
    from castlegate.cli.demo import DemoFailed
    from castlegate.cli.demo import run as run_demo

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(0 if run_demo(port, once=once) else 1)
    except KeyboardInterrupt:
        sys.exit(0)
    except DemoFailed as error:
        _fail(str(error), 1)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _fail(text: str, status: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
