"""Access tokens of the gateway's own issuer, as it writes them and no other way.

The head of a token must be, byte for byte, the one that the issuer puts before the tokens of one of its keys; so
nothing that a token says of itself is ever read, let alone believed, before its signature was found good by that key.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from castlegate.means import Means, OwnTokens
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.schemes.scheme import Unauthenticated

_LONGEST = 16 * 1024  # bytes of a token
_WORD = b"bearer "

_decode = msgspec.json.Decoder(dict).decode


class IssuedTokens:
    """See `castlegate.schemes.scheme.Scheme`."""

    challenge = "Bearer"
    ambient = False

    def __init__(self, name: str, _settings: bool, means: Means) -> None:
        assert means.own is not None, "the document was checked"
        self._name = name
        self._own: OwnTokens = means.own

    def take(self, request: Request) -> bytes | None:
        """From `Authorization: Bearer ...`."""
        value = request.headers.get(b"authorization")
        if value is None or value[: len(_WORD)].lower() != _WORD:
            return None
        return value[len(_WORD) :].strip(b" ") or None

    def known(self, credential: bytes) -> Principal | None:
        """Nobody: every token is verified."""
        del credential
        return None

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """Whose it is. Raises `Unauthenticated`."""
        del request
        if len(credential) > _LONGEST:
            raise Unauthenticated("The token is too large.")
        signed, _, encoded = credential.rpartition(b".")
        head, _, payload = signed.partition(b".")
        verifies = self._own.keys.get(head)
        if verifies is None:
            raise Unauthenticated("The token is not one that is issued here, or its key is not used any more.")
        signature = _decoded(encoded)
        if signature is None or not verifies(signed, signature):
            raise Unauthenticated("The signature of the token is not good.")
        claims = _decode(urlsafe_b64decode(payload + b"=="))
        if claims["iss"] != self._own.issuer or claims["aud"] != self._own.audience:
            raise Unauthenticated("The token is for somebody else.")  # the same key, before the settings were changed
        if time.time() >= claims["exp"]:
            raise Unauthenticated("The token has expired.")
        return Principal(
            subject=claims["sub"],
            scheme=self._name,
            claims=claims,
            scopes=frozenset(claims["scope"].split()),
            credential=claims["jti"],
            expires=claims["exp"],
        )


def _decoded(text: bytes) -> bytes | None:
    """Of base64url in its one spelling; None for another."""
    try:
        found = urlsafe_b64decode(text + b"==")
    except ValueError:
        return None
    return found if urlsafe_b64encode(found).rstrip(b"=") == text else None
