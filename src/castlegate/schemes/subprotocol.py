"""A credential among the subprotocols that a client offers for a WebSocket, which browsers let pages say.

    Sec-WebSocket-Protocol: NAME, CREDENTIAL, chat.v1
    Sec-WebSocket-Protocol: NAME.BASE64URL-OF-CREDENTIAL, chat.v1

The second form is that of Kubernetes, for credentials that no subprotocol can be called (`/`, `=`).
"""

from __future__ import annotations

from castlegate.message import Request
from castlegate.schemes.scheme import Unauthenticated
from castlegate.schemes.strict import decode_base64url

_FIELD = b"sec-websocket-protocol"


class Subprotocol:
    """Of one name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pair = name.encode()
        self._start = self._pair + b"."

    def take(self, request: Request) -> bytes | None:
        """The credential that is offered. Raises `Unauthenticated`."""
        found, _ = self._divide(_offered(request))
        if not found:
            return None
        if len(found) > 1:
            raise Unauthenticated(f"The subprotocol {self._name} is offered more than once.", "invalid_request")
        [(form, value)] = found
        if form != self._pair:
            try:
                value = decode_base64url(form[len(self._start) :])
            except ValueError as error:
                detail = f"What stands behind '{self._name}.' is not base64url without padding."
                raise Unauthenticated(detail, "invalid_request") from error
        if not value:
            raise Unauthenticated(f"No credential stands behind the subprotocol {self._name}.", "invalid_request")
        return value

    def withhold(self, request: Request) -> None:
        """Leave the others."""
        found, others = self._divide(_offered(request))
        if not found:
            return
        headers = request.headers.without(_FIELD)
        request.headers = headers.adding(_FIELD, b", ".join(others)) if others else headers

    def _divide(self, offered: list[bytes]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """What is ours, each with what stands behind it if that is part of it, and the others."""
        found, others = [], []
        entries = iter(offered)
        for entry in entries:
            if entry == self._pair:
                found.append((entry, next(entries, b"")))
            elif entry.startswith(self._start):
                found.append((entry, b""))
            else:
                others.append(entry)
        return found, others


def _offered(request: Request) -> list[bytes]:
    """In their order (RFC 6455 §11.3.4: the field may stand several times)."""
    lines = request.headers.get_all(_FIELD)
    return [entry for line in lines for each in line.split(b",") if (entry := each.strip(b" \t"))]
