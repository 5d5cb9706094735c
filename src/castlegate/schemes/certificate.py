"""Certificates of clients: the TLS handshake has verified them, here they get a name and are let in or not.

Whose a certificate is, is said by the certificate alone; who vouches for it, by a signature of one of the authorities,
not by the name of the issuer, which any authority that clients may use could put into a certificate.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from castlegate.config.report import DocumentPath, Place, Report, show_path
from castlegate.config.units import Seconds
from castlegate.means import Means
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.rules.remembered import Remembered
from castlegate.schemes.scheme import Unauthenticated
from castlegate.wire.certificates import read_authorities

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_KEPT = 4096  # certificates whose owner is remembered


class ClientCertificate(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The certificate that the client showed and that `listen.tls.clients` has verified."""

    subject: Literal["dns", "uri", "email", "cn"] = "dns"
    """Which of its names says whose it is: an alternative name of that type, or the common name of the subject (`cn`).
    Of several, the first that is allowed."""
    subjects: list[str] = []
    """The names that are let in; `*` stands for one label or segment: `*.partners.example.com`,
    `spiffe://example.com/ns/*/sa/orders`. All, if nothing is said."""
    issuers: list[str] = []
    """Files in PEM, relative to the configuration's folder: the authorities of which one must have signed the
    certificate itself. Without it, all that `listen.tls.clients.ca` leads to: say it where that vouches for clients
    that this scheme is not for."""
    watch: Seconds = 5.0
    """Between two looks at these files: what has changed counts from then on, if it is valid."""

    def check(self, at: Place) -> None:
        """The names and the files."""
        for index, pattern in enumerate(self.subjects):
            if not pattern.strip("*./@:"):
                place = at.field("subjects", index)
                place.mistake(f"expected a name such as *.partners.example.com, found {place.shown(pattern)}")
        self.authorities(at)

    def authorities(self, at: Place) -> list[Certificate]:
        """Those in the files of `issuers`."""
        found: list[Certificate] = []
        for index, file in enumerate(self.issuers):
            found += read_authorities(at.field("issuers", index), file)
        return found


class Issuers:
    """The authorities that must have signed, made anew by `reload`. See `castlegate.wire.certificates.FromFiles`."""

    def __init__(self, name: str, settings: ClientCertificate, folder: Path) -> None:
        self.every = settings.watch
        self._settings = settings
        self._path: DocumentPath = ("auth", name, "certificate")
        self.name = show_path(self._path)
        self._folder = folder
        self.known: Remembered[bytes, Principal] = Remembered(_KEPT)
        """Whose certificates they have signed, or anybody has where there are none."""
        self._authorities: list[Certificate]
        self.reload()

    @property
    def files(self) -> list[Path]:
        """Those it was made from."""
        return [self._folder / file for file in self._settings.issuers]

    def reload(self) -> list[str]:
        """See `FromFiles`."""
        report = Report(self._folder)
        authorities = self._settings.authorities(report.place(*self._path))
        report.raise_if_any()
        self._authorities, self.known = authorities, Remembered(_KEPT)
        return [str(warning) for warning in report.warnings]

    def vouch_for(self, certificate: Certificate) -> bool:
        """Whether one of them has signed it; nobody has to where none are said."""
        return not self._settings.issuers or any(_signed(certificate, issuer) for issuer in self._authorities)


class CertificateScheme:
    """See `castlegate.schemes.scheme.Scheme`."""

    challenge = ""
    carrier = None
    credential = "client certificate"
    # Browsers show the certificate that was once chosen with every request, whoever has them make it.
    ambient = True

    def __init__(self, name: str, settings: ClientCertificate, means: Means) -> None:
        self._name = name
        self._names = _NAMES[settings.subject]
        flags = re.IGNORECASE | re.ASCII if settings.subject == "dns" else 0
        self._allowed = [re.compile(_pattern(each), flags) for each in settings.subjects]
        self.issuers = Issuers(name, settings, means.folder)

    def take(self, request: Request) -> bytes | None:
        """The certificate itself: the same object for all requests of a connection."""
        return request.certificate

    def known(self, credential: bytes) -> Principal | None:
        """Whose it is, while it is valid: a connection may live longer."""
        found = self.issuers.known.get(credential)
        return found if found is not None and time.time() < found.expires else None

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """Whose it is, and whether its owner is let in."""
        del request
        from cryptography import x509  # slow to load, and not everybody needs it

        known = self.issuers.known  # what is found now does not count for authorities that come meanwhile
        try:
            certificate = x509.load_der_x509_certificate(credential)
            principal = self._judge(certificate, sha256(credential).hexdigest())
        except ValueError as error:  # what OpenSSL takes and nobody else reads
            raise Unauthenticated("The certificate cannot be read.") from error
        known.put(credential, principal)
        return principal

    def _judge(self, certificate: Certificate, fingerprint: str) -> Principal:
        expires = certificate.not_valid_after_utc.timestamp()
        if time.time() >= expires:
            raise Unauthenticated("The certificate has expired.")
        if not self.issuers.vouch_for(certificate):
            raise Unauthenticated("The certificate is not from an authority that is accepted here.")
        names = [name for name in self._names(certificate) if name]
        allowed = [name for name in names if not self._allowed or any(each.fullmatch(name) for each in self._allowed)]
        if not allowed:
            raise Unauthenticated("The certificate's owner is not accepted here.")
        claims = {
            "sub": allowed[0],
            "names": names,
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "serial": f"{certificate.serial_number:x}",
        }
        return Principal(subject=allowed[0], scheme=self._name, claims=claims, credential=fingerprint, expires=expires)


def _signed(certificate: Certificate, issuer: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _pattern(name: str) -> str:
    return "[^./@]+".join(re.escape(part) for part in name.split("*"))


def _alternatives(kind: str, certificate: Certificate) -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    if kind == "dns":
        return [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return names.get_values_for_type(x509.UniformResourceIdentifier if kind == "uri" else x509.RFC822Name)


def _common(certificate: Certificate) -> list[str]:
    from cryptography import x509

    return [str(each.value) for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]


_NAMES: dict[str, Callable[[Certificate], list[str]]] = {
    "dns": partial(_alternatives, "dns"),
    "uri": partial(_alternatives, "uri"),
    "email": partial(_alternatives, "email"),
    "cn": _common,
}
