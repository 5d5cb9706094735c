"""TLS to the instances of a service: whom we trust, and how we prove who we are.

Verification is on unless it is switched off in so many words.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from pathlib import Path

import msgspec

from castlegate.config.addresses import check_host
from castlegate.config.report import DocumentPath, Place, Report, show_path
from castlegate.config.units import Seconds
from castlegate.waiting import Waiter
from castlegate.wire.certificates import PairFiles, load_authorities, load_pair, new_context
from castlegate.wire.tls import TlsStream

logger = logging.getLogger("castlegate.services")

_LOG_EVERY = 10.0  # seconds between two lines of a kind about an instance: each request may try to connect


class ServiceTls(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """TLS to `https://` instances; files are relative to the configuration's folder."""

    ca: str | None = None
    """File in PEM: the authorities that vouch for the service; else those that the system trusts."""
    cert: str | None = None
    """File in PEM: our own certificate, for services that ask for one."""
    key: str | None = None
    """File in PEM: its key."""
    passphrase: str | None = None
    """Of the key, if it is encrypted. From the environment or a file: `${KEY_PASSPHRASE}`, `${file:/run/secret}`."""
    server_name: str | None = None
    """The name that is asked for (SNI) and that the certificate must be for; else the instance's host."""
    verify: bool = True
    """`false` believes whoever answers, which is no better than plain HTTP against an attacker in between."""
    watch: Seconds = 5.0
    """Between two looks at the files: what has changed is used for new connections, if it is valid."""

    def check(self, at: Place) -> None:
        """The files, by making of them what connections will use."""
        _make(self, at)
        if self.server_name is not None:
            try:
                check_host(self.server_name)
            except ValueError as error:
                at.field("server_name").refuse(self.server_name, error)
        if not self.verify and self.ca is not None:
            at.field("verify").mistake("'ca' says whom to trust, and 'verify: false' to trust anyone; say one of them")


class ServiceCertificates:
    """The context of a service's connections, made anew by `reload`; open connections stay."""

    def __init__(self, settings: ServiceTls, whose: str, path: DocumentPath, folder: Path) -> None:
        """`whose` they are, in words such as `service orders`, and the `path` of the settings in the configuration: for
        the log.
        """
        self.name = show_path(path)
        self.every = settings.watch
        self._settings = settings
        self._whose = whose
        self._path = path
        self._folder = folder
        self._context: ssl.SSLContext
        self._told: dict[tuple[str, str], float] = {}  # instance and reason → when it was logged
        self.reload()

    @property
    def files(self) -> list[Path]:
        """Those it was made from."""
        settings = self._settings
        return [self._folder / name for name in (settings.ca, settings.cert, settings.key) if name]

    @property
    def context(self) -> ssl.SSLContext:
        """What connections are made with now."""
        return self._context

    def reload(self) -> list[str]:
        """See `FromFiles`."""
        report = Report(self._folder)
        context = _make(self._settings, report.place(*self._path))
        report.raise_if_any()
        self._context = context
        return [str(warning) for warning in report.warnings]

    async def connect(self, inner: asyncio.Protocol, host: str, port: int) -> None:
        """Connect and shake hands; raises `OSError`, which `ssl.SSLError` is."""
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: _Stream(self, self._context, inner, host, port), host, port)
        try:
            await stream.opened
        except BaseException:
            stream.discard()
            raise

    def name_of(self, host: str) -> str:
        """What the certificate of an instance must be for."""
        return self._settings.server_name or host

    def tell(self, instance: str, error: ssl.SSLError) -> None:
        """Log what is amiss between an instance and us; clients are not told."""
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        reason = reason or str(error)
        now = time.monotonic()
        if now - self._told.get((instance, reason), -_LOG_EVERY) >= _LOG_EVERY:
            self._told[instance, reason] = now
            reason = reason if " " in reason else reason.lower().replace("_", " ")
            logger.warning("%s: no TLS with %s: %s", self._whose, instance, reason)


def _make(settings: ServiceTls, at: Place) -> ssl.SSLContext:
    """The context; every mistake is reported to `at`."""
    context = new_context(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca is not None:
        load_authorities(context, at.field("ca"), settings.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.cert is not None and settings.key is not None:
        load_pair(context, at, PairFiles(settings.cert, settings.key, settings.passphrase))
    elif settings.cert is not None or settings.key is not None:
        there, missing = ("cert", "key") if settings.key is None else ("key", "cert")
        at.field(there).mistake(f"a certificate needs its key: '{missing}' is missing")
    elif settings.passphrase is not None:
        at.field("passphrase").mistake("there is no 'key' that it could be for")
    return context


class _Stream(TlsStream):
    """A connection to an instance, and who waits for its handshake."""

    __slots__ = ("_certificates", "_context", "_instance", "_name", "opened")

    def __init__(
        self, certificates: ServiceCertificates, context: ssl.SSLContext, inner: asyncio.Protocol, host: str, port: int
    ) -> None:
        super().__init__(inner)
        self._certificates = certificates
        self._context = context
        self._name = certificates.name_of(host)
        self._instance = f"{host}:{port}"
        self.opened: Waiter[None] = Waiter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        super().connection_made(transport)
        self.begin(self._context, server_side=False, server_name=self._name)

    def handshaken(self) -> None:
        """It can be used."""
        super().handshaken()
        self.opened.settle(None)

    def failed(self, error: Exception) -> None:
        """It never could."""
        if isinstance(error, ssl.SSLError):
            self._certificates.tell(self._instance, error)
        self.opened.fail(error)

    def broken(self, error: ssl.SSLError) -> None:
        """As a service says that wants a certificate of us: in TLS 1.3 when our side of the handshake is done."""
        self._certificates.tell(self._instance, error)

    def discard(self) -> None:
        """Nobody waits for it any more, and what is inside is not to hear of it."""
        self._open = False
        self.abort()
