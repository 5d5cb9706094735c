"""Which of a client's header fields end at the gateway, so that nothing can be made of them."""

from __future__ import annotations

import re

# Those of one hop, and those that it reads itself and writes anew; in whichever spelling servers take for them.
_ENDING = re.compile(
    r"connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|host|content-length|expect"
    r"|x-request-id|traceparent|tracestate|forwarded|via|x-forwarded-.*|x-real-ip.*"
)


def ends_at_gateway(name: str) -> bool:
    """Whether the edge reads the field and does not pass it on."""
    return _ENDING.fullmatch(name.lower().replace("_", "-")) is not None
