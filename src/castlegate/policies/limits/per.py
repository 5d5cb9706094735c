"""What limits are counted per: the part of a request that makes one caller's count another than the next one's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address

from castlegate.config.references import NO_PARTS, Scope
from castlegate.config.report import Place, suggest
from castlegate.config.templates import Sink, compile_text
from castlegate.message import Request

KeyOf = Callable[[Request], bytes]

WORDS = ("address", "principal", "key", "route")


def key_of(per: str, scope: Scope, at: Place) -> KeyOf:
    """What finds the key in a request. Raises `RequestRefused` there where a reference is missing."""
    known = _KNOWN.get(per)
    if known is not None:
        return known
    render = compile_text(per, Sink.KEY, scope, at).render
    return lambda request: render(request, NO_PARTS)


_MEANT = {"user": "principal", "caller": "principal", "ip": "address", "client": "address"}


def check_per(per: str, scope: Scope, at: Place, *, public: bool) -> None:
    """Report where it cannot be found."""
    if per in ("principal", "key") and public:
        at.mistake(
            f"the route is public, so there is no {per}; say 'per: address', or who may call with 'auth', or '[]' for "
            "no such limit"
        )
    elif per not in WORDS:
        if "{" not in per:
            hint = suggest(_MEANT.get(per, per), WORDS, "there are") + (
                "" if suggest(_MEANT.get(per, per), WORDS) else ", or a reference such as '{path.id}'"
            )
            at.mistake(f"limits are not per {at.shown(per)}{hint}")
        elif compile_text(per, Sink.KEY, scope, at).needs_body:
            at.mistake("limits are judged before the body is read; use path, query, header, claims or principal")


def _address(request: Request) -> bytes:
    client = request.client
    return _network(client) if ":" in client else client.encode()


@lru_cache(4096)
def _network(client: str) -> bytes:
    """Whoever has one address of IPv6 has the 2^64 of its network, and an address of each for every request."""
    try:
        address = IPv6Address(client)
    except ValueError:
        return client.encode()
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped).encode()
    return address.packed[:8] + b"/64"


def _principal(request: Request) -> bytes:
    principal = request.principal
    return b"" if principal is None else f"{principal.scheme}\0{principal.subject}".encode()


def _credential(request: Request) -> bytes:
    principal = request.principal
    if principal is None or not principal.credential:
        return _principal(request)
    return f"{principal.scheme}\0\0{principal.credential}".encode()


def _route(_request: Request) -> bytes:
    return b""


_KNOWN: dict[str, KeyOf] = {"address": _address, "principal": _principal, "key": _credential, "route": _route}
