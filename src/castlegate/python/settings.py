"""What operators say of functions in Python."""

from __future__ import annotations

import msgspec

from castlegate.config.units import Count, Size


class PythonSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Bounds on functions in Python."""

    threads: Count = 8
    """Of each worker, for functions that are no `async def`. One that never returns keeps its thread."""
    queued: Count = 64
    """Calls of such functions that may wait for a thread of a worker; one more is answered 503."""
    collected: Size = 10 * 1024 * 1024
    """Bytes of a service's answer that a function gets; of a larger one it is told that there is no usable answer."""
