"""Certificates, keys and authorities from files to TLS contexts; what is wrong is reported where the file is named.

Knows nothing of who uses a context. What is made from files can be made again: see `FromFiles`.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from castlegate.config.report import Place

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# TLS 1.2 without what lacks forward secrecy or authenticated encryption (RFC 9325 §4.2); those of 1.3 are all good.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_NOT_READ = "which holds no certificate in PEM, or one that cannot be read"
_LARGEST = 16 * 1024 * 1024  # bytes of a file; the authorities that browsers trust have 250 KB, long lists of
# revoked certificates some megabytes


class FromFiles(Protocol):
    """Something made from files, to be made anew when they change."""

    name: str  # in the configuration
    every: float  # seconds between two looks at the files

    @property
    def files(self) -> list[Path]:
        """Those it was made from."""

    def reload(self) -> list[str]:
        """Take what the files hold now, for new connections; the warnings. Raises `ConfigError` and keeps what it had
        if they cannot be used. Any thread may call it.
        """


def new_context(purpose: int) -> ssl.SSLContext:
    """A context for `ssl.PROTOCOL_TLS_SERVER` or `ssl.PROTOCOL_TLS_CLIENT` without certificates."""
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


class PairFiles(NamedTuple):
    """A certificate and its key, as the configuration names them."""

    cert: str
    key: str
    passphrase: str | None


def load_pair(context: ssl.SSLContext, at: Place, files: PairFiles) -> list[str]:
    """Have the context prove itself with a certificate and its key, the fields `cert`, `key` and `passphrase` of `at`;
    the names that the certificate is for.
    """
    from cryptography import x509  # slow to load, and only who speaks TLS needs it
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    cert, key, folder = at.field("cert"), at.field("key"), at.report.folder
    passphrase = files.passphrase or None
    chain_pem, key_pem = read_file(cert, files.cert), read_file(key, files.key)
    chain, private = [], None
    if chain_pem is not None:
        try:
            chain = x509.load_pem_x509_certificates(chain_pem)
        except ValueError:
            refuse_file(cert, files.cert, "which holds no certificate in PEM")
    if key_pem is not None:
        try:
            private = load_pem_private_key(key_pem, None if passphrase is None else passphrase.encode())
        except TypeError:
            if passphrase is None:
                refuse_file(key, files.key, "which is encrypted: it needs a 'passphrase'")
            else:
                at.field("passphrase").mistake(f"the key in {key.shown(files.key)} is not encrypted; leave this out")
        except ValueError:
            unless = "" if passphrase is None else ", or not one with this passphrase"
            refuse_file(key, files.key, f"which holds no private key in PEM{unless}")
    if not chain or private is None:
        return []
    if chain[0].public_key() != private.public_key():
        refuse_file(key, files.key, "which is not the key of the first certificate in 'cert'")
        return []
    try:
        context.load_cert_chain(folder / files.cert, folder / files.key, password=passphrase or "")
    except (OSError, ValueError) as error:
        refuse_file(cert, files.cert, f"which OpenSSL refuses: {getattr(error, 'reason', None) or error}")
        return []
    _warn_of_dates(chain[0], cert, files.cert)
    return _names(chain[0])


def load_authorities(context: ssl.SSLContext, at: Place, file: str) -> list[Certificate]:
    """Have the context trust the authorities in a file, and no others; these."""
    from cryptography.hazmat.primitives.serialization import Encoding

    authorities = read_authorities(at, file)
    try:
        # Not as it stands: `ssl` takes no text that is not ASCII, which the names between certificates may be.
        der = b"".join([each.public_bytes(Encoding.DER) for each in authorities])
        if der:
            context.load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        refuse_file(at, file, _NOT_READ)
        return []
    return authorities


def read_authorities(at: Place, file: str) -> list[Certificate]:
    """The certificates in a file; none after a mistake."""
    from cryptography import x509

    pem = read_file(at, file)
    if pem is None:
        return []
    try:
        authorities = x509.load_pem_x509_certificates(pem)
    except ValueError:
        refuse_file(at, file, _NOT_READ)
        return []
    for authority in authorities:
        _warn_of_dates(authority, at, file)
    return authorities


def read_file(at: Place, file: str) -> bytes | None:
    """What is in a file that `at` names; None if it cannot be had, which is reported."""
    try:
        with (at.report.folder / file).open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        refuse_file(at, file, f"which cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    if len(content) > _LARGEST:
        refuse_file(at, file, f"which is larger than {_LARGEST // 2**20} MiB")
        return None
    return content


def refuse_file(at: Place, file: str, reason: str) -> None:
    """Report that a file which `at` names cannot be used."""
    at.mistake(f"found {at.shown(file)}, {reason}")


def _warn_of_dates(certificate: Certificate, at: Place, file: str) -> None:
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc < now:
        at.warning(f"found {at.shown(file)}, which has expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    elif certificate.not_valid_before_utc > now:
        at.warning(f"found {at.shown(file)}, which is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on only")


def _names(certificate: Certificate) -> list[str]:
    """DNS names; of a certificate without alternative names the common name, as `openssl req` makes them."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return [str(name.value).lower() for name in common]
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]
