"""From which addresses a route may be called. Behind trusted proxies the address is the one that they vouch for."""

from __future__ import annotations

from collections.abc import Awaitable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from castlegate.config.report import Place
from castlegate.errors import Kinds, RequestRefused
from castlegate.message import Handler, Request, Response
from castlegate.policies.policy import Site, refuse
from castlegate.rules.remembered import Remembered
from castlegate.sketch import Description, Sketch

_REMEMBERED = 4096  # addresses whose verdict is kept

Networks = list[IPv4Network | IPv6Network]


class Addresses(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Networks in CIDR notation, such as `10.0.0.0/8`, `2001:db8::/32` or one address."""

    allow: list[str] | None = None
    """Only these may call; nothing said: all."""
    deny: list[str] = []
    """These may not, even where `allow` has them."""

    def check(self, at: Place) -> None:
        """The networks."""
        for field in ("allow", "deny"):
            for index, text in enumerate(getattr(self, field) or ()):
                try:
                    ip_network(text)
                except ValueError as error:
                    at.field(field, index).refuse(text, ValueError(f"expected a network such as 10.0.0.0/8; {error}"))
        if self.allow == []:
            at.field("allow").mistake("an empty list leaves nobody who may call")


class AddressSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a route says of them."""

    addresses: Addresses | None = None
    """From where the route may be called."""


def addresses(settings: AddressSettings, site: Site) -> AddressPolicy | None:
    """The policy, where networks are said."""
    del site
    return None if settings.addresses is None else AddressPolicy(settings.addresses)


class AddressPolicy:
    """Of one route. The verdict on an address is kept; what is kept is bounded."""

    def __init__(self, settings: Addresses) -> None:
        self._settings = settings
        self._allow = None if settings.allow is None else [ip_network(text) for text in settings.allow]
        self._deny = [ip_network(text) for text in settings.deny]
        self._verdicts: Remembered[str, bool] = Remembered(_REMEMBERED)

    def describe(self, sketch: Sketch) -> Description:
        """The networks."""
        del sketch
        says = {"allowed": "all" if self._settings.allow is None else ", ".join(self._settings.allow)}
        if self._settings.deny:
            says["denied"] = ", ".join(self._settings.deny)
        return Description(role="policy", name="addresses", says=says)

    def wrap(self, inner: Handler) -> Handler:
        """403 for everyone else."""
        verdicts = self._verdicts

        def handle(request: Request) -> Awaitable[Response]:
            verdict = verdicts.get(request.client)
            if verdict is None:
                verdict = self._judge(request.client)
            if verdict:
                return inner(request)
            return refuse(RequestRefused(Kinds.FORBIDDEN, "This may not be asked from where you are."), request)

        return handle

    def _judge(self, client: str) -> bool:
        verdict = self._allowed(client)
        self._verdicts.put(client, verdict)
        return verdict

    def _allowed(self, client: str) -> bool:
        """An address that cannot be read (of a proxy that hides it) is in no network."""
        try:
            address = ip_address(client)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._deny):
            return False
        return self._allow is None or any(address in network for network in self._allow)
