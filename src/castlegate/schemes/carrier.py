"""Where in a request a credential stands: the `Authorization` field, another one, a cookie, the query, or the
subprotocols of a WebSocket.

What is found is handed on as it stands; whether it can be a credential at all is for its scheme to say. Services do not
get what was accepted: whoever has seen it could use it elsewhere, and who calls is theirs to be told by `identity`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import msgspec

from castlegate.config.fields import ends_at_gateway
from castlegate.config.references import query_parameters
from castlegate.config.report import Place, listed
from castlegate.errors import RequestRefused
from castlegate.headers import Headers
from castlegate.message import Request
from castlegate.schemes.scheme import Unauthenticated
from castlegate.schemes.subprotocol import Subprotocol

Take = Callable[[Request], bytes | None]
Withhold = Callable[[Request], None]

_WORD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.6.2
# Also what the access log knows a parameter by: no dots and brackets, which divide names there.
_PARAMETER = re.compile(r"[A-Za-z0-9_-]+")
_OTHERS = {"authorization": "authorization", "cookie": "cookie", "sec-websocket-protocol": "subprotocol"}
_LOGGED = "user-agent"


class Carrier(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where the credential stands. Of several that are said, the first that is there counts."""

    authorization: str | None = None
    """In the field `Authorization`, behind this word: `Bearer`."""
    header: str | None = None
    """In a header field of this name, and nothing else in it."""
    cookie: str | None = None
    """In a cookie of this name. Browsers send it by themselves, so requests that change anything need a check of where
    they come from."""
    query: str | None = None
    """In a query parameter of this name, for clients that can set no header. Its value is not written to the access
    log."""
    subprotocol: str | None = None
    """Among the subprotocols that are offered for a WebSocket, behind this name: `Sec-WebSocket-Protocol: NAME,
    CREDENTIAL`, or `NAME.` and the credential in base64url without padding."""
    forward: bool = False
    """`true` leaves the credential in the request, for services that verify it themselves. Without it, services do not
    get what was accepted: neither the field, nor that one cookie, nor the query parameter, nor the subprotocol."""

    def check(self, at: Place) -> None:
        """The names."""
        for name, form, example in (
            ("authorization", _WORD, "Bearer"),
            ("header", _WORD, "X-API-Key"),
            ("cookie", _WORD, "session"),
            ("query", _PARAMETER, "api_key"),
            ("subprotocol", _WORD, "castlegate.bearer"),
        ):
            said = getattr(self, name)
            if said is not None and not form.fullmatch(said):
                at.field(name).mistake(f"expected a name such as {example}, found {at.field(name).shown(said)}")
        if self.header is None:
            return
        place = at.field("header")
        name = self.header.lower()
        if name in _OTHERS:
            place.mistake(f"say it with '{_OTHERS[name]}': what stands before the credential, or the cookie's name")
        elif name == _LOGGED or ends_at_gateway(name):
            place.mistake(f"{place.shown(self.header)} cannot carry a credential: the gateway reads or logs it")

    @property
    def said(self) -> bool:
        """Whether anything is."""
        return not (self.authorization is self.header is self.cookie is self.query is self.subprotocol is None)

    @property
    def ambient(self) -> bool:
        """Whether browsers send it by themselves."""
        return self.cookie is not None

    @property
    def secret_parameters(self) -> list[str]:
        """Query parameters that are not to be logged."""
        return [] if self.query is None else [self.query]

    @property
    def places(self) -> list[str]:
        """Where it stands, in words."""
        places = [] if self.authorization is None else ["Authorization"]
        places += [] if self.header is None else [self.header]
        places += [] if self.cookie is None else [f"the cookie {self.cookie}"]
        places += [] if self.query is None else [f"the query parameter {self.query}"]
        return places + ([] if self.subprotocol is None else [f"the subprotocol {self.subprotocol}"])

    @property
    def fields(self) -> list[str]:
        """Header fields that hold it and nothing else."""
        return [
            *([] if self.authorization is None else ["authorization"]),
            *([] if self.header is None else [self.header]),
        ]

    def absent(self, request: Request, what: str) -> str:
        """What is told a client whose request does not have it; `what` it is."""
        if self.authorization is not None and len(self.places) == 1:
            value = request.headers.get(b"authorization")
            if value is not None and value.lower().strip(b" ") != self.authorization.lower().encode():
                return f"Authorization does not begin with '{self.authorization} '."
        return f"There is no {what} in {listed(self.places, 'or')}."

    def withholder(self) -> Withhold | None:
        """What takes it out of a request, from wherever it may stand; None if it stays."""
        if self.forward:
            return None
        steps: list[Withhold] = []
        if self.authorization is not None:
            steps.append(_without_authorization(self.authorization))
        if self.header is not None:
            steps.append(_without_field(self.header))
        if self.cookie is not None:
            steps.append(_without_cookie(self.cookie))
        if self.query is not None:
            steps.append(_without_parameter(self.query))
        if self.subprotocol is not None:
            steps.append(Subprotocol(self.subprotocol).withhold)
        if len(steps) == 1:
            return steps[0]

        def withhold(request: Request) -> None:
            for step in steps:
                step(request)

        return withhold

    def taker(self) -> Take:
        """What finds it."""
        takers: list[Take] = []
        if self.authorization is not None:
            takers.append(_behind_word(self.authorization))
        if self.header is not None:
            takers.append(_in_field(self.header))
        if self.cookie is not None:
            takers.append(_in_cookie(self.cookie))
        if self.query is not None:
            takers.append(_in_query(self.query))
        if self.subprotocol is not None:
            takers.append(Subprotocol(self.subprotocol).take)
        if len(takers) == 1:
            return takers[0]

        def take(request: Request) -> bytes | None:
            for each in takers:
                found = each(request)
                if found is not None:
                    return found
            return None

        return take


def ambiguous(place: str) -> Unauthenticated:
    """There are several that differ: who sends them may mean one, and who reads the request after us another."""
    return Unauthenticated(f"There is more than one credential in {place}.", "invalid_request")


def challenge(word: str, realm: str) -> str:
    """How clients are asked for it (RFC 9110 §11.6.1)."""
    quoted = realm.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\").replace('"', '\\"')
    return f'{word} realm="{quoted}"'


def _behind_word(word: str) -> Take:
    start = word.lower().encode() + b" "
    length = len(start)

    def take(request: Request) -> bytes | None:
        value = request.headers.get(b"authorization")
        if value is None or value[:length].lower() != start:
            return None
        return value[length:].strip(b" ") or None

    return take


def _in_field(name: str) -> Take:
    field = name.lower().encode()
    return lambda request: request.headers.get(field) or None


def _in_cookie(name: str) -> Take:
    wanted = name.encode()

    def take(request: Request) -> bytes | None:
        credential = None
        for field in request.headers.get_all(b"cookie"):
            for pair in field.split(b";"):
                found, _, value = pair.strip(b" \t").partition(b"=")
                if found == wanted and value:
                    if credential is not None and value != credential:
                        raise ambiguous(f"the cookie {name}")  # of another path or domain, or set by a stranger
                    credential = value
        return credential

    return take


def _in_query(name: str) -> Take:
    def take(request: Request) -> bytes | None:
        if not request.query:
            return None
        try:
            values = query_parameters(request.query).get(name)
        except RequestRefused:
            return None  # one that is not UTF-8 is answered 400 by whoever needs something of it
        if not values:
            return None
        if any(value != values[0] for value in values):
            raise ambiguous(f"the query parameter {name}")
        return values[0].encode() or None

    return take


def _without_authorization(word: str) -> Withhold:
    # Of another word it is somebody else's.
    start = b"authorization: " + word.lower().encode() + b" "
    length = len(start)

    def withhold(request: Request) -> None:
        headers = request.headers
        for line in headers.lines:
            if line.startswith(b"authorization") and line[:length].lower() == start:
                request.headers = headers.without(b"authorization")
                return

    return withhold


def _without_field(name: str) -> Withhold:
    field = name.lower().encode()

    def withhold(request: Request) -> None:
        request.headers = request.headers.without(field)

    return withhold


def _without_cookie(name: str) -> Withhold:
    wanted = name.encode()

    def withhold(request: Request) -> None:
        headers: Headers = request.headers.without(b"cookie")
        for field in request.headers.get_all(b"cookie"):
            pairs = [pair.strip(b" \t") for pair in field.split(b";")]
            kept = b"; ".join([pair for pair in pairs if pair and pair.partition(b"=")[0] != wanted])
            if kept:
                headers = headers.adding(b"cookie", kept)
        request.headers = headers

    return withhold


def _without_parameter(name: str) -> Withhold:
    wanted = name.encode()

    def withhold(request: Request) -> None:
        pairs = request.query.split(b"&")
        # Names as they are read: percent-encoded ones are the same.
        kept = [pair for pair in pairs if unquote_to_bytes(pair.partition(b"=")[0]) != wanted]
        if len(kept) < len(pairs):
            request.query = b"&".join(kept)

    return withhold
