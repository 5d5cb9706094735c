"""Header fields that tell browsers to be careful with an answer. What the service says itself stands."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import SecondsOrZero
from castlegate.headers import Headers
from castlegate.message import Handler, Request, Response
from castlegate.policies.policy import Site
from castlegate.sketch import Description, Sketch

_YEAR = 365 * 86400.0


class SecureFields(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fields that are added where the service does not set them. A plain `true` stands for all with these values."""

    short: ClassVar[str] = "enabled"

    enabled: bool = True
    """`false` adds none, whatever `defaults` say."""
    hsts: SecondsOrZero = _YEAR
    """`Strict-Transport-Security`: for so long only HTTPS is used with this host. Sent over HTTPS alone; `0s` ends it
    with those who have been told."""
    subdomains: bool = False
    """Whether that holds for all names below the host's."""
    sniffing: bool = False
    """`false` sends `X-Content-Type-Options: nosniff`: the content is what its type says."""
    frames: str | None = "DENY"
    """`X-Frame-Options`: `DENY` or `SAMEORIGIN`; null leaves it out."""
    referrer: str | None = "no-referrer"
    """`Referrer-Policy`; null leaves it out."""
    content: str | None = "default-src 'none'; frame-ancestors 'none'"
    """`Content-Security-Policy`: right for an API, whose answers load nothing; null, or one of your own, for pages."""

    def check(self, at: Place) -> None:
        """What can stand in a field."""
        if self.frames not in (None, "DENY", "SAMEORIGIN"):
            at.field("frames").mistake(
                f"expected DENY, SAMEORIGIN or null, found {at.field('frames').shown(self.frames)}"
            )
        for name in ("referrer", "content"):
            text = getattr(self, name)
            if text is not None and not (text.isascii() and text.isprintable()):
                at.field(name).mistake("expected printable ASCII in one line")


class SecureSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a route says of them."""

    secure: SecureFields | None = None
    """Header fields that tell browsers to be careful: `secure: true`."""


def secure(settings: SecureSettings, site: Site | None = None) -> Secure | None:
    """The policy, where it is asked for; the same for every route."""
    del site
    fields = settings.secure
    return Secure(fields) if fields is not None and fields.enabled else None


class Secure:
    """Adds the fields to every answer of its route."""

    def __init__(self, settings: SecureFields) -> None:
        subdomains = b"; includeSubDomains" if settings.subdomains else b""
        self._hsts = b"strict-transport-security: max-age=%d%b\r\n" % (int(settings.hsts), subdomains)
        said = [
            (b"x-content-type-options", None if settings.sniffing else "nosniff"),
            (b"x-frame-options", settings.frames),
            (b"referrer-policy", settings.referrer),
            (b"content-security-policy", settings.content),
        ]
        # Each line with what it begins with behind the line before it.
        self._lines = [(b"\r\n%b: " % name, b"%b: %b\r\n" % (name, text.encode())) for name, text in said if text]
        self._encrypted = [*self._lines, (b"\r\nstrict-transport-security: ", self._hsts)]

    def describe(self, sketch: Sketch) -> Description:
        """The fields."""
        del sketch
        lines = [line[:-2].decode() for _, line in self._lines]
        return Description(role="policy", name="secure", says={"adds": lines, "over HTTPS": self._hsts[:-2].decode()})

    def wrap(self, inner: Handler) -> Handler:
        """Answers without one of the fields get it."""

        async def handle(request: Request) -> Response:
            response = await inner(request)
            self.dress(request, response)
            return response

        return handle

    def dress(self, request: Request, response: Response) -> None:
        """The same of an answer of the edge, which no handler made."""
        lines = self._encrypted if request.scheme == b"https" else self._lines
        wire = b"\r\n" + response.headers.wire
        missing = [line for start, line in lines if start not in wire]
        response.headers = Headers([*response.headers.lines, *missing])
