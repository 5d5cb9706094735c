"""Keeps what was made from certificate files up to date with them, by a look every few seconds.

A look costs a `stat` of each file, in a thread: a file system that hangs holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging

from castlegate.config.files import Signature, signature
from castlegate.config.report import ConfigError
from castlegate.telemetry.stumbles import Stumbles
from castlegate.wire.certificates import FromFiles

logger = logging.getLogger("castlegate.certificates")


async def keep_current(made: FromFiles, seen: Signature) -> None:
    """Reload whenever the files have changed since they were `seen`; until cancelled."""
    loop, stumbles = asyncio.get_running_loop(), Stumbles(logger, f"watching the certificates of '{made.name}'")
    while True:
        await asyncio.sleep(made.every)
        try:
            now = await loop.run_in_executor(None, signature, made.files)
            if now != seen:
                seen = now  # taken before the files are read: what is written meanwhile is another change
                await loop.run_in_executor(None, reload, made)
        except Exception as error:  # noqa: BLE001 - logged
            stumbles.tell(error)


def reload(made: FromFiles) -> bool:
    """Take what the files hold now, and tell the log; whether it is used."""
    try:
        warnings = made.reload()
    except ConfigError as error:
        for mistake in error.report.mistakes:
            logger.error("the new certificates are not used: %s", mistake)
        return False
    for warning in warnings:
        logger.warning("%s", warning)
    logger.info("new certificates of '%s' are used from now on", made.name)
    return True
