"""The program: `python -m castlegate_broker --listen 127.0.0.1:9092`.

Its first line on standard output is `listening on HOST:PORT`, for a parent that gave port 0; everything else is
on standard error. SIGTERM and SIGINT end it with exit code 0.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvloop

from castlegate_broker.server import Broker
from castlegate_broker.settings import Settings

_PARENT_CHECK_S = 0.5
_NOTICE = (
    "castlegate embedded broker on %s:%d: for development and tests only. It keeps nothing: all records, topics "
    "and committed offsets are in memory and gone when it ends. At most %d MiB of records are held, the oldest "
    "are given up first."
)

logger = logging.getLogger("castlegate_broker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker until it is told to end."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(_settings(options), exit_with_parent=options.exit_with_parent))
        except OSError as error:
            logger.error("can't listen on %s:%d: %s", *options.listen, error)
            return 1
    return 0


async def _serve(settings: Settings, *, exit_with_parent: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    parent = os.getppid()
    async with Broker(settings) as broker:
        sys.stdout.write(f"listening on {settings.host}:{broker.port}\n")
        sys.stdout.flush()
        logger.info(_NOTICE, settings.host, broker.port, settings.total_bytes >> 20)
        if not exit_with_parent:
            await stop.wait()
        # Asking who the parent is works on every Unix, and whatever became of its pipes.
        while exit_with_parent and not stop.is_set() and os.getppid() == parent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PARENT_CHECK_S)


def _settings(options: argparse.Namespace) -> Settings:
    host, port = options.listen
    return Settings(
        host=host,
        port=port,
        advertise=options.advertise,
        default_partitions=options.partitions,
        auto_create_topics=options.auto_create,
        retention_bytes=options.retention_bytes,
        total_bytes=options.total_bytes,
        max_message_bytes=options.max_message_bytes,
        initial_rebalance_delay_s=options.rebalance_delay_ms / 1000,
    )


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m castlegate_broker",
        description="A small in-memory Kafka broker for development and tests. It keeps nothing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--listen", metavar="HOST:PORT", type=_address, default=(default.host, default.port))
    add(
        "--advertise",
        metavar="HOST:PORT",
        type=_address,
        help="address that clients are told; if left out, the one that each connected to",
    )
    add(
        "--partitions",
        metavar="N",
        type=_positive,
        default=default.default_partitions,
        help="partitions of topics that are created on the way",
    )
    add(
        "--auto-create",
        action=argparse.BooleanOptionalAction,
        default=default.auto_create_topics,
        help="create topics that clients ask for",
    )
    add("--retention-bytes", metavar="N", type=_positive, default=default.retention_bytes, help="per partition")
    add("--total-bytes", metavar="N", type=_positive, default=default.total_bytes, help="of all partitions")
    add(
        "--max-message-bytes",
        metavar="N",
        type=_positive,
        default=default.max_message_bytes,
        help="of one record batch, unless the topic sets it",
    )
    add(
        "--rebalance-delay-ms",
        metavar="N",
        type=float,
        default=default.initial_rebalance_delay_s * 1000,
        help="how long the first member of a group waits for others",
    )
    add("--exit-with-parent", action="store_true", help="end when the process that started this one has ended")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
