"""How long an answer made of several may be kept (RFC 9111): as long as the one that may be kept the shortest.

A part that says nothing cannot be taken for one that may be kept. What is not complete is kept by nobody.
"""

from __future__ import annotations

import re
from functools import lru_cache

NOT_AT_ALL = b"no-store"

_DIRECTIVE = re.compile(rb"([A-Za-z0-9_-]+)(?:\s*=\s*\"?([^\",]*)\"?)?")
_SHARED = {b"public", b"must-revalidate", b"s-maxage"}  # whatever the request's `Authorization` (§3.5)
_FRESH_IF_SHARED = {b"proxy-revalidate", b"s-maxage"}  # §5.2.2.8, §5.2.2.10
_SECONDS = re.compile(rb"[0-9]{1,10}")


@lru_cache(1024)  # services repeat themselves
def strictest(controls: tuple[bytes | None, ...], *, authorized: bool = False) -> bytes:
    """`Cache-Control` of the whole, by those of the parts, which may say their age as `age=`. `authorized`: the request
    has `Authorization`, with which shared caches may keep nothing but what says so.
    """
    said = [_read(control or b"no-cache") for control in controls]
    if any(b"no-store" in each for each in said):
        return NOT_AT_ALL
    words = [b"private"] if any(b"private" in each for each in said) else []
    ages = [_left(each) for each in said]
    if any(b"no-cache" in each for each in said) or None in ages:
        return b", ".join([*words, b"no-cache"])
    words.append(b"max-age=%d" % min(age for age in ages if age is not None))
    if any(b"must-revalidate" in each for each in said):
        # It forbids the stale, which any part may, and allows shared caches to keep, which takes all (§3.5).
        if authorized and not words[:-1] and not all(_SHARED & each.keys() for each in said):
            words.insert(0, b"private")
        words.append(b"must-revalidate")
    elif any(_FRESH_IF_SHARED & each.keys() for each in said):
        words.append(b"proxy-revalidate")
    return b", ".join(words)


@lru_cache(1024)
def united(varies: tuple[bytes, ...]) -> bytes:
    """`Vary` of the whole, but for what parts are asked for in one way only."""
    names = {name.strip().lower() for vary in varies for name in vary.split(b",")}
    return b", ".join(sorted(names - {b"", b"accept", b"accept-encoding"}))


def _read(control: bytes) -> dict[bytes, list[bytes]]:
    said: dict[bytes, list[bytes]] = {}
    for name, value in _DIRECTIVE.findall(control):
        said.setdefault(name.lower(), []).append(value.strip())
    return said


def _left(said: dict[bytes, list[bytes]]) -> int | None:
    """Seconds that it may still be kept: for private caches and shared ones, and of what is said twice, whichever is
    less.
    """
    ages = [age for name in (b"max-age", b"s-maxage") for age in said.get(name, ())]
    if not ages or not all(map(_SECONDS.fullmatch, ages)):
        return None
    gone = [int(age) for age in said.get(b"age", ()) if _SECONDS.fullmatch(age)]
    return max(0, min(map(int, ages)) - max(gone, default=0))
