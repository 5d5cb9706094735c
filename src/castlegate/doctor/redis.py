"""Whether the Redis of limits answers, can be used, and lets the gateway write."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from castlegate.doctor.findings import Finding, Unreachable, connect
from castlegate.stores.redis_store import client_of
from castlegate.stores.settings import LimitStore

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PORT = 6379
_OLDEST = 5  # scripts may ask for the time and then write since this one
_PROBE = "redis.call('SET', KEYS[1], redis.call('TIME')[1], 'PX', 1) return 1"  # what limits need, in small


async def examine(settings: LimitStore, folder: Path, within: float) -> Finding:
    """All of it, the password never told."""
    assert settings.url is not None, "the document was checked"
    check, place = f"limit store {settings.url}", urlsplit(settings.url)
    try:
        await connect(place.hostname or "", place.port or _PORT, within)
    except Unreachable as failure:
        return Finding(check, "wrong", failure.reason, failure.advice)
    return await _asked(check, settings, folder, within)


async def _asked(check: str, settings: LimitStore, folder: Path, within: float) -> Finding:
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

    client = client_of(settings, folder, within)
    try:
        async with asyncio.timeout(within):
            await client.ping()
            version = await _version(client)
            if version and int(version.partition(".")[0]) < _OLDEST:
                return Finding(check, "wrong", f"it is Redis {version}", f"take Redis {_OLDEST} or later")
            await client.eval(_PROBE, 1, f"{settings.prefix}:reached")
    except AuthenticationError as error:
        return Finding(check, "wrong", str(error), "see 'user' and 'password' of 'limit_store'")
    except NoPermissionError as error:
        advice = f"ACL SETUSER NAME ~{settings.prefix}:* +eval +get +set +incr +expireat +time +ping"
        return Finding(check, "wrong", f"it does not permit what limits need: {error}", advice)
    except ResponseError as error:
        # A replica, one that has no memory left, one that wants a password.
        return Finding(check, "wrong", f"it answers, but takes nothing: {error}", "name a Redis that can be written to")
    except TimeoutError:
        return Finding(check, "wrong", f"it does not answer within {within:g} s", "see whether it is busy or stopped")
    except (RedisError, OSError) as error:
        return Finding(check, "wrong", f"{error}", "see whether it is Redis, and whether it wants TLS (rediss://)")
    finally:
        await client.aclose()
    return Finding(check, "well", f"Redis{f' {version}' if version else ''} answers, and may be written to")


async def _version(client: Redis) -> str:
    """Nothing where that is not told."""
    from redis.exceptions import NoPermissionError

    try:
        return str((await client.info("server")).get("redis_version", ""))
    except NoPermissionError:
        return ""
