"""The command line: reads arguments, calls what does the work, says what went wrong.

What only one command needs is imported when it runs: the others start sooner without.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sized
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from castlegate import __version__
from castlegate.cli.keys import keys
from castlegate.config.report import ConfigError
from castlegate.document import load
from castlegate.policies.named import read_caller
from castlegate.routing.template import METHODS
from castlegate.server.supervisor import run as serve
from castlegate.upstreams.kafka.settings import EMBEDDED

_CONFIG = click.argument("config", type=click.Path(path_type=Path))


class _Program(click.Group):
    """Its commands are in the order of this file, which is that of their use."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run, and end with the command: threads that a module of functions has started hold up nobody."""
        try:
            return super().__call__(*arguments, **named)
        except SystemExit as ended:
            lingers = any(not each.daemon for each in threading.enumerate() if each is not threading.current_thread())
            if lingers and isinstance(ended.code, int):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code)
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Not sorted by name."""
        del ctx
        return list(self.commands)


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="castlegate")
def main() -> None:
    """castlegate: one entry point in front of services that speak Kafka or HTTP.

    CONFIG is a YAML file that names the services and the routes. Write one with `schema` in your editor, let `check`
    tell what is wrong with it and `explain` what it does with a request; on the machine that it is for, `doctor` sees
    whether all it names can be reached; `run` serves it. To see a gateway at work first: `castlegate demo`.
    """


@main.command()
@click.option("--once", is_flag=True, help="End after the requests; exit with 1 if one of them failed.")
@click.option(
    "--port", metavar="PORT", default=8080, show_default=True, help="Where the gateway listens; 0 takes a free port."
)
def demo(once: bool, port: int) -> None:
    """Show a gateway at work in front of a small shop.

    Starts the embedded broker, three services (plain HTTP, FastStream and, where Node.js is there, NestJS) and the
    gateway, asks each of them something, and stays until Ctrl-C so that you can go on. Its configuration and services
    are in examples/shop.
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


@main.command()
def schema() -> None:
    """Print the JSON Schema of CONFIG, for editors.

    With it an editor completes keys, shows what they mean and marks most mistakes while you type. Editors that use the
    YAML language server find it by a comment in the first line of the configuration:

    \b
      castlegate schema > castlegate.schema.json
      # yaml-language-server: $schema=castlegate.schema.json
    """
    from castlegate.schema import to_text

    click.echo(to_text(), nl=False)


@main.command()
@_CONFIG
def check(config: Path) -> None:
    """Tell every mistake in CONFIG.

    Each is a line of its own on standard error, fit for editors and CI: FILE:LINE:COLUMN: what was found, what was
    expected. All are told at once. No network is needed: `doctor` looks at what CONFIG names. Variables that CONFIG
    takes from the environment must be set; their values are never shown.

    Warnings, such as of a certificate that has expired, are no mistakes.

    \b
    Exit status:
      0  no mistake
      2  at least one
    """
    try:
        document, report = load(config)
    except ConfigError as error:
        _fail(str(error), 2)
    for warning in report.warnings:
        click.echo(f"{warning} (warning)", err=True)
    routes, services = _counted("route", document.routes), _counted("service", document.services)
    click.echo(f"{config}: {routes}, {services}, no mistakes")


@main.command(name="explain")
@_CONFIG
@click.argument("method", required=False)
@click.argument("path", required=False)
@click.option("--all", "every", is_flag=True, help="Every route in a line, in place of METHOD and PATH.")
@click.option("--host", metavar="HOST", default="localhost", show_default=True, help="The Host of the request.")
@click.option("--header", "fields", metavar="'NAME: VALUE'", multiple=True, help="A field of the request; repeatable.")
@click.option(
    "--as",
    "caller",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help='Who calls, a JSON file: {"subject": "ann", "scheme": "idp", "scopes": ["a"], "claims": {"tier": "gold"}}.',
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def explain_request(
    config: Path,
    method: str | None,
    path: str | None,
    every: bool,
    host: str,
    fields: tuple[str, ...],
    caller: Path | None,
    as_json: bool,
) -> None:
    """Tell what becomes of a request METHOD PATH.

    Shows the route that CONFIG has for it, the settings that hold and where each was said, every link of the chain that
    the request passes, and what the service would be sent. What depends on the rest of the request is named by its
    reference, such as {header.x-tenant}. Where no route is for the request, the nearest ones are shown and what keeps
    them from being it. With --as it is told what allows or refuses the request of such a caller, and why. Nothing is
    sent, no network is needed. PATH may have a query:

    \b
      castlegate explain gateway.yaml --all
      castlegate explain gateway.yaml GET '/orders/42?page=2'
      castlegate explain gateway.yaml OPTIONS /orders/42 --header 'Access-Control-Request-Method: DELETE'

    \b
    Exit status:
      0  the request reaches its endpoint
      1  the gateway answers itself: 404, 405, 400, 403 and so on
      2  a mistake in CONFIG, or in what was asked for
    """
    from castlegate import explain, overview

    if every:
        if method is not None:
            _fail("either METHOD and PATH, or --all", 2)
        try:
            lines = overview.overview(config)
        except ConfigError as error:
            _fail(str(error), 2)
        click.echo(_json(lines) if as_json else overview.to_text(lines))
        return
    if method is None or path is None:
        _fail("say METHOD and PATH of a request, or --all", 2)
    if method != method.upper() and method.upper() in METHODS:
        _fail(f"methods are in upper case: {method.upper()}", 2)
    if not path.startswith(("/", "http://", "https://")) and path != "*":
        _fail(f"PATH begins with '/': /{path}", 2)
    try:
        told = explain.explain(config, method, path, host, fields, None if caller is None else read_caller(caller))
    except ConfigError as error:
        _fail(str(error), 2)
    click.echo(_json(told) if as_json else explain.to_text(told))
    sys.exit(0 if told.goes_through else 1)


@main.command()
@_CONFIG
@click.option(
    "--timeout",
    "within",
    metavar="SECONDS",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 120),
    help="At most, for each step.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def doctor(config: Path, within: float, as_json: bool) -> None:
    """See whether all that CONFIG names is well.

    Looks at this machine: open files, the log, the addresses to listen on, and where quotas, logins, signing keys and
    API keys are kept. Looks up the instances of HTTP services that are found elsewhere. Connects to each instance, over
    TLS where it is https://, sees whether its certificate is believed and for how long, and makes its health check; to
    the Redis of limits, and sees whether it can be written to. Connects to each Kafka broker, also where the brokers
    tell clients to go. Sees whether the topics that routes and the gateway itself need are there and permitted. Sends a
    record through each inbox and back, which gateways that run take for another one's and drop. Says of each what is
    wrong and what to do about it. Creates nothing.

    \b
    Exit status:
      0  all is well; notes are worth knowing and keep nothing from working
      1  something is wrong
      2  a mistake in CONFIG
    """
    from castlegate.cli.diagnosis import Progress
    from castlegate.doctor.examine import examine

    try:
        with Progress(quiet=as_json) as progress:
            diagnosis = examine(config, within, progress.tell)
    except ConfigError as error:
        _fail(str(error), 2)
    if as_json:
        click.echo(_json(diagnosis))
    sys.exit(0 if diagnosis.well else 1)


@main.command()
@_CONFIG
def run(config: Path) -> None:
    """Serve the routes of CONFIG.

    Clients connect at `listen`; `/health`, `/ready` and `/metrics` are at `admin`; each request is a line of JSON in
    `access_log`. Brokers that are down keep nothing from starting: their routes answer 503 until they are found. With
    `kafka: embedded` the in-memory broker is started too, for development.

    SIGTERM and Ctrl-C finish what is in flight, for at most `drain`.

    \b
    Exit status:
      0  stopped by a signal
      1  an address or the log cannot be had
      2  a mistake in CONFIG
    """
    try:
        sys.exit(serve(config))
    except ConfigError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(error.strerror or str(error), 1)


@main.command()
@click.option("--listen", metavar="HOST:PORT", default=EMBEDDED, show_default=True, help="Port 0 takes a free one.")
def broker(listen: str) -> None:
    """Run the in-memory Kafka broker, for development.

    It speaks Kafka's protocol, so that any Kafka client can use it, and keeps nothing: what is in it is gone when it
    ends. `kafka: embedded` in a configuration starts the same one along with the gateway; on its own it outlives the
    gateway and can be given to services and tests.
    """
    os.execv(sys.executable, [sys.executable, "-m", "castlegate_broker", "--listen", listen])  # noqa: S606


main.add_command(keys)


def _counted(what: str, things: Sized) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _fail(text: str, status: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
