"""Access tokens of the gateway's own issuer: JWTs that are judged like all others, by keys that need not be fetched.

They end with their time, and with the login that they came of.
"""

from __future__ import annotations

import time

import msgspec

from castlegate.config.report import Place
from castlegate.errors import CallFailed, Kinds
from castlegate.means import Means
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.schemes.carrier import Carrier
from castlegate.schemes.scheme import Unauthenticated
from castlegate.schemes.token_keys import KeySet, from_jwk
from castlegate.schemes.tokens import Rules, TokenRefused, judge, principal_of, read
from castlegate.schemes.verified import Verified, VerifiedTokens

_LONGEST = 16 * 1024  # bytes of a token
_DEEPEST = 16  # nesting of its claims
_REMEMBERED = 5000  # verified tokens, in each worker


class Issued(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Access tokens of the gateway's own `issuer`."""

    subprotocol: str | None = None
    """The name behind which the token is offered as a subprotocol of a WebSocket, in place of `Authorization`."""
    forward: bool = False
    """`true` leaves the token in the request, for services that verify it themselves."""

    @property
    def carrier(self) -> Carrier:
        """Where the token stands."""
        bearer = "Bearer" if self.subprotocol is None else None
        return Carrier(authorization=bearer, subprotocol=self.subprotocol, forward=self.forward)

    def check(self, at: Place) -> None:
        """The name."""
        self.carrier.check(at)


class IssuedTokens:
    """See `castlegate.schemes.scheme.Scheme`."""

    challenge = "Bearer"
    credential = "token"
    ambient = False

    def __init__(self, name: str, settings: bool | Issued, means: Means) -> None:
        own = means.own
        assert own is not None, "the document was checked"
        self._name = name
        self.carrier = (settings if isinstance(settings, Issued) else Issued()).carrier
        self.take = self.carrier.taker()
        self._keys = KeySet([from_jwk(key) for key in own.keys])
        self._rules = Rules(
            issuer=own.issuer,
            audiences=frozenset((own.audience,)),
            algorithms=None,
            jku=None,
            typ=frozenset(("at+jwt",)),
            leeway=own.leeway,
            required=(),
            subject="sub",
            scopes=("scope",),
        )
        self._logins = own.logins
        # With the keys, what was verified by one that is gone is forgotten.
        made_from = (own.issuer, own.audience, own.keys, own.leeway)
        self._tokens = means.resources.keep(f"issued {name}", made_from, lambda: VerifiedTokens(_REMEMBERED))

    def known(self, credential: bytes) -> Principal | None:
        """Whose it is, if it was verified before and its login is known to go on."""
        principal = self._tokens.get(credential, time.time())
        if principal is None or not self._logins.holds(principal.claims["sid"]):
            return None
        return principal

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """Whose it is. Raises `Unauthenticated`."""
        principal = self._tokens.get(credential, time.time()) or self._verified(credential)
        try:
            lasts = await self._logins.lasts(principal.claims["sid"], request.deadline)
        except CallFailed as failed:
            raise Unauthenticated(
                "It cannot be known now whether the token still counts.", kind=Kinds.UNVERIFIABLE
            ) from failed
        if not lasts:
            raise Unauthenticated("The login of the token has ended.")
        return principal

    def _verified(self, credential: bytes) -> Principal:
        token = read(credential, _LONGEST, _DEEPEST)
        judge(token, self._rules, time.time())
        key = self._keys.verifying(token.signed)
        if key is None:
            raise TokenRefused("signature", "The token was not signed here, or its key is not used any more.")
        if not isinstance(token.claims.get("sid"), str):
            raise TokenRefused("claims", "The token does not say which login it is of.")
        principal = principal_of(token, self._rules, self._name)
        self._tokens.put(credential, Verified(principal, key))
        return principal
