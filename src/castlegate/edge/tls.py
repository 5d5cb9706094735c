"""TLS towards clients and operators: which certificate a name gets, and who may connect.

TLS 1.2 and 1.3 with HTTP/1.1 inside; a client that offers other protocols only is refused. What is made from the files
can be made anew while connections live: `Certificates.reload`.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from pathlib import Path
from typing import ClassVar, NamedTuple

import msgspec

from castlegate.config.report import DocumentPath, Place, Report, show_path
from castlegate.config.units import Seconds
from castlegate.wire.certificates import PairFiles, load_authorities, load_pair, new_context
from castlegate.wire.client_hello import Hello
from castlegate.wire.revocation import load_revoked

logger = logging.getLogger("castlegate.edge")

_PROTOCOL = "http/1.1"
_HOST_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_LOG_EVERY = 1.0  # seconds between two lines on handshakes that failed


class Certificate(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A certificate and its key; files are relative to the configuration's folder."""

    cert: str
    """File in PEM: the certificate, then those that lead to its authority."""
    key: str
    """File in PEM: its key."""
    passphrase: str | None = None
    """Of the key, if it is encrypted. From the environment or a file: `${KEY_PASSPHRASE}`, `${file:/run/secret}`."""
    hosts: list[str] = []
    """Names that it is shown for, `*.example.com` for all one label below; else those in the certificate."""


class ClientCertificates(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Certificates of clients. A file alone stands for `ca`."""

    short: ClassVar[str] = "ca"

    ca: str
    """File in PEM: the authorities that vouch for clients."""
    required: bool = True
    """Whether a client without one is refused; one that cannot be verified always is. Where operators look, `false`
    leaves probes and metrics open to those without one."""
    crl: str | None = None
    """File in PEM: the lists of certificates that these authorities, and those between them and clients, have revoked.
    Whom they do not cover, or no longer since they have expired, is refused."""


class EdgeTls(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """TLS towards clients: 1.2 and 1.3, HTTP/1.1 inside. `cert` and `key`, or several `certificates`; a list alone
    stands for those.
    """

    short: ClassVar[str] = "certificates"

    cert: str | None = None
    """File in PEM of the only certificate, then those that lead to its authority."""
    key: str | None = None
    """File in PEM of its key."""
    passphrase: str | None = None
    """Of the key, if it is encrypted. From the environment or a file: `${KEY_PASSPHRASE}`, `${file:/run/secret}`."""
    certificates: list[Certificate] = []
    """Several, chosen by the name that the client asks for (SNI). The first is the default."""
    clients: ClientCertificates | None = None
    """Ask clients for a certificate, and verify it."""
    handshake_timeout: Seconds = 10.0
    """From connecting to the end of the handshake; then the connection is closed."""
    watch: Seconds = 5.0
    """Between two looks at the files: what has changed is used for new connections, if it is valid."""

    def check(self, at: Place) -> None:
        """The files, by making of them what the listener will use."""
        _make(self, at)


class _Table(NamedTuple):
    """The contexts of one reading of the files."""

    default: ssl.SSLContext
    by_name: dict[bytes, ssl.SSLContext]  # in lower case; `*.` at the front stands for any label


class FailureLog:
    """One line a second at most: anyone can make handshakes fail."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._left_out = 0

    def tell(self, peer: str, reason: str) -> None:
        """Of a client that did not get to its first request."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._left_out += 1
            return
        more = f" ({self._left_out} more since the last line like this)" if self._left_out else ""
        logger.info("no TLS with %s: %s%s", peer, reason.lower().replace("_", " "), more)
        self._quiet_until, self._left_out = now + _LOG_EVERY, 0


class Certificates:
    """Those of a listener, made anew by `reload`; connections that are open or shaking hands keep what they began with.

    Tickets of earlier sessions do not outlive a reload, and none are given where clients show certificates: whether
    one is still good is asked at every connection.
    """

    def __init__(self, settings: EdgeTls, path: DocumentPath, folder: Path) -> None:
        """`path`: of the settings in the configuration."""
        self.name = show_path(path)
        self._path = path
        self.every = settings.watch
        self.handshake_timeout = settings.handshake_timeout
        self.failures = FailureLog()
        self._settings = settings
        self._folder = folder
        self._table: _Table
        self.reload()

    @property
    def files(self) -> list[Path]:
        """Those it was made from."""
        settings = self._settings
        names = [
            settings.cert,
            settings.key,
            settings.clients and settings.clients.ca,
            settings.clients and settings.clients.crl,
        ]
        for each in settings.certificates:
            names += [each.cert, each.key]
        return [self._folder / name for name in names if name]

    def context(self, hello: Hello) -> ssl.SSLContext | None:
        """For a client that begins like this; None: it speaks nothing that we do."""
        default, by_name = self._table
        if hello.protocols is not None and _PROTOCOL.encode() not in hello.protocols:
            return None
        name = hello.host.lower().rstrip(b".")
        return by_name.get(name) or by_name.get(b"*." + name.partition(b".")[2]) or default

    def reload(self) -> list[str]:
        """See `FromFiles`."""
        report = Report(self._folder)
        table = _make(self._settings, report.place(*self._path))
        report.raise_if_any()
        assert table is not None, "what cannot be made has mistakes"
        self._table = table
        return [str(warning) for warning in report.warnings]


def _make(settings: EdgeTls, at: Place) -> _Table | None:
    """The contexts; None if there is none, every mistake is reported to `at`."""
    contexts: list[ssl.SSLContext] = []
    by_name: dict[bytes, ssl.SSLContext] = {}
    for certificate, place in _pairs(settings, at):
        context = _context(settings, at)
        found = load_pair(context, place, PairFiles(certificate.cert, certificate.key, certificate.passphrase))
        contexts.append(context)
        for index, host in enumerate(certificate.hosts):
            if not _HOST_NAME.fullmatch(host):
                where = place.field("hosts", index)
                where.mistake(f"expected a host name or one such as *.example.com, found {where.shown(host)}")
        for name in certificate.hosts or found:
            by_name.setdefault(name.lower().rstrip(".").encode(), context)
    if not contexts or at.report:
        return None
    return _Table(contexts[0], by_name)


def _pairs(settings: EdgeTls, at: Place) -> list[tuple[Certificate, Place]]:
    cert, key, several = settings.cert, settings.key, settings.certificates
    if several and (cert or key or settings.passphrase):
        at.mistake(
            "both 'certificates' and 'cert', 'key' or 'passphrase' are said; say one certificate, or a list of them"
        )
    elif several:
        return [(each, at.field("certificates", index)) for index, each in enumerate(several)]
    elif cert and key:
        return [(Certificate(cert=cert, key=key, passphrase=settings.passphrase), at)]
    elif not at.field("certificates").spoilt and not at.field("cert").spoilt and not at.field("key").spoilt:
        at.mistake("expected 'cert' and 'key', or 'certificates'")
    return []


def _context(settings: EdgeTls, at: Place) -> ssl.SSLContext:
    context = new_context(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([_PROTOCOL])
    clients = settings.clients
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED if clients.required else ssl.CERT_OPTIONAL
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        place = at.field("clients")
        authorities = load_authorities(context, place.field("ca"), clients.ca)
        if clients.crl is not None and authorities:
            load_revoked(context, place.field("crl"), clients.crl, authorities)
    return context
