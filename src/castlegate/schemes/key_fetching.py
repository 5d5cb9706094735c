"""How keys are fetched, and for how long an answer holds: what operators say, and the rules. Does no I/O."""

from __future__ import annotations

import re

import msgspec

from castlegate.config.addresses import Url, is_loopback, parse_origin
from castlegate.config.report import Place
from castlegate.config.units import Seconds, Size
from castlegate.headers import Headers
from castlegate.rules.freshness import max_age
from castlegate.wire.service_tls import ServiceTls

_AGE = re.compile(rb"[0-9]{1,10}")


class KeyFetching(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a provider's keys are fetched, and how long they hold. Each worker fetches its own."""

    refresh: Seconds = 300.0
    """How old keys may be where the provider does not say (`Cache-Control: max-age`). They are fetched anew a little
    before."""
    at_least: Seconds = 60.0
    """The shortest time that the provider can say."""
    at_most: Seconds = 3600.0
    """The longest time that the provider can say."""
    unknown: Seconds = 30.0
    """Between two fetches because of tokens that name an unknown key."""
    keep: Seconds = 86400.0
    """How long keys hold while the provider cannot be reached. After that requests are answered 503."""
    timeout: Seconds = 3.0
    """For one try to fetch them."""
    size: Size = 256 * 1024
    """The largest answer of the provider that is read."""
    tls: ServiceTls = ServiceTls()
    """How the provider is trusted."""
    allow_http: bool = False
    """`true` allows `http://` beyond this machine. Whoever is in between can then say which tokens are good."""

    def check(self, at: Place) -> None:
        """The order of the times."""
        if self.at_least > self.at_most:
            at.field("at_least").mistake("this is longer than 'at_most'")
        if self.keep <= max(self.at_most, self.refresh):
            at.field("keep").mistake("keys must be kept for longer than 'at_most' and 'refresh', or they end before")


def lifetime(headers: Headers, settings: KeyFetching) -> float:
    """Seconds that an answer may be used for (RFC 9111 §4.2, as a private cache), within the bounds."""
    said, age = max_age(headers.get(b"cache-control")), headers.get(b"age")
    if said is None:
        return settings.refresh
    if age is not None and _AGE.fullmatch(age):
        said -= float(age)
    return min(max(said, settings.at_least), settings.at_most)


def may_be_asked(address: Url, settings: KeyFetching, vouched_by: str = "") -> bool:
    """Whether keys may come from there: over TLS, or without it from this machine or where that is allowed. What an
    issuer that is asked over TLS names is asked over TLS too.
    """
    if address.origin.startswith("https://"):
        return True
    if vouched_by.startswith("https://"):
        return False
    return settings.allow_http or is_loopback(parse_origin(address.origin).host)
