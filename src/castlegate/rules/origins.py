"""Origins of pages (RFC 6454), and patterns of them: one label below a name `https://*.example.com`, any port `:*`."""

from __future__ import annotations

import re
from collections.abc import Callable

_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\*\.)?(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(?::(?:[0-9]{1,5}|\*))?"
)


def is_origin(text: str) -> bool:
    """Whether it is an origin, or a pattern of some."""
    return _ORIGIN.fullmatch(text) is not None


def starts_as_origin(text: str) -> bool:
    """Whether it is one with more behind it, such as a path."""
    return _ORIGIN.match(text) is not None


def matcher(origins: list[str]) -> Callable[[bytes], bool]:
    """Whether an origin is one of those."""
    exact = frozenset(origin.encode() for origin in origins if "*" not in origin)
    patterns = [_pattern(origin) for origin in origins if "*" in origin]
    pattern = re.compile(b"|".join(patterns)) if patterns else None
    return lambda origin: origin in exact or (pattern is not None and pattern.fullmatch(origin) is not None)


def _pattern(origin: str) -> bytes:
    if origin == "*":
        return b".+"
    text = re.escape(origin).replace(r"://\*\.", r"://[a-z0-9-]+\.").replace(r":\*", r"(?::[0-9]{1,5})?")
    return f"(?:{text})".encode()
