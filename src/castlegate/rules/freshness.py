"""How long an answer says that it may be kept (RFC 9111 §5.2.2), read as a private cache does."""

from __future__ import annotations

import re

# Names end where they end: `x-max-age` and `no-storeroom` say nothing. Numbers too long to mean anything are cut.
_MAX_AGE = re.compile(rb"(?:^|[,\s])max-age=\"?([0-9]{1,10})")
_NOT_TO_KEEP = re.compile(rb"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s;=])")


def max_age(control: bytes | None) -> float | None:
    """Seconds that a `Cache-Control` field allows, counted from when the answer was made; None if it does not say."""
    if control is None:
        return None
    control = control.lower()
    if _NOT_TO_KEEP.search(control):
        return 0.0
    found = _MAX_AGE.search(control)
    return None if found is None else float(found[1])
