"""Whether an instance proves itself over TLS to the gateway, with the very settings that its connections use.

A certificate that is not believed is fetched once more, unverified, so that its names and its issuer can be told.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
from cryptography import x509

from castlegate.doctor.findings import Finding, in_thread
from castlegate.wire.certificates import new_context
from castlegate.wire.service_tls import ServiceCertificates

Address = tuple[str, int]

_SOON = timedelta(days=14)  # before its end a certificate is worth a note
_ALERT_S = 0.3  # in which a server refuses a client: in TLS 1.3 its handshake is done before that of the server
_SLACK_S = 1.0  # for a thread that is slower than its timeouts

# X509_V_ERR_..., of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME = 9, 10, (62, 64)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


class Proof(NamedTuple):
    """A handshake that was done."""

    version: str
    certificate: x509.Certificate


async def handshake(
    well: Finding, certificates: ServiceCertificates, address: Address, host: str, within: float
) -> Finding:
    """What there is to say of it; `well` is what was found before."""
    section, name = f"'{certificates.name}'", certificates.name_of(host)
    context = certificates.context
    try:
        proof = await in_thread(lambda: _shake_hands(context, address, name, within), 2 * within + _SLACK_S)
    except ssl.SSLCertVerificationError as failure:
        return await _unbelieved(well, failure, address, name, section, within)
    except TimeoutError:
        return _wrong(
            well, f"no TLS handshake within {within:g} s", "see whether the port speaks TLS, and whether it hangs"
        )
    except ssl.SSLError as failure:
        return _wrong(well, f"no TLS: {_words(failure)}", _advice(failure.reason or "", section))
    except OSError as failure:
        says = f"it ends the connection within the TLS handshake: {failure.strerror or failure}"
        return _wrong(well, says, "see whether the port speaks TLS, and the service's log")
    left = proof.certificate.not_valid_after_utc - datetime.now(UTC)
    until = f"{proof.certificate.not_valid_after_utc:%Y-%m-%d}"
    says = f"{well.says}, {proof.version}, and proves to be {name} until {until}"
    if context.verify_mode is ssl.CERT_NONE:
        says = f"{well.says}, {proof.version}, and is believed whoever it is: 'verify: false' in {section}"
        return msgspec.structs.replace(
            well, verdict="note", says=says, advice=f"say whom to trust with 'ca' in {section}"
        )
    if left < _SOON:
        advice = f"renew its certificate: it expires in {max(left.days, 0)} days"
        return msgspec.structs.replace(well, verdict="note", says=says, advice=advice)
    return msgspec.structs.replace(well, says=says)


def _shake_hands(context: ssl.SSLContext, address: Address, name: str, within: float) -> Proof:
    """Blocks. Raises `OSError`, which `TimeoutError` and `ssl.SSLError` are."""
    with (
        socket.create_connection(address, within) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
        assert der is not None, "servers have one in all the cipher suites that we offer"
        secure.settimeout(min(within, _ALERT_S))
        with contextlib.suppress(TimeoutError):  # it waits for a request
            secure.recv(1)
        return Proof(secure.version() or "TLS", x509.load_der_x509_certificate(der))


async def _unbelieved(
    well: Finding, failure: ssl.SSLCertVerificationError, address: Address, name: str, section: str, within: float
) -> Finding:
    found = await _unverified(address, name, within)
    code = failure.verify_code
    if code in (_EXPIRED, _NOT_YET_VALID):
        what = "has expired" if code == _EXPIRED else "is not valid yet"
        when = (
            ""
            if found is None
            else f": it is for {found.not_valid_before_utc:%Y-%m-%d} to {found.not_valid_after_utc:%Y-%m-%d}"
        )
        return _wrong(well, f"its certificate, or one above it, {what}{when}", "renew it; or set this machine's clock")
    if code in _WRONG_NAME:
        names = "" if found is None else f", but for {', '.join(_names(found)) or 'no name'}"
        advice = f"correct the URL, or name what the certificate is for with 'server_name' in {section}"
        return _wrong(well, f"its certificate is not for {name}{names}", advice)
    if code in _UNKNOWN_AUTHORITY:
        by = "" if found is None else f", {found.issuer.rfc4514_string()},"
        advice = f"name the file of its authority with 'ca' in {section}; or have the service send the whole chain"
        return _wrong(well, f"who vouches for its certificate{by} is not trusted: {failure.verify_message}", advice)
    return _wrong(well, f"its certificate is not believed: {failure.verify_message}", "see what its certificate says")


async def _unverified(address: Address, name: str, within: float) -> x509.Certificate | None:
    """The certificate of whoever answers; None where it asks for one of ours, perhaps."""
    context = new_context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError):
        proof = await in_thread(lambda: _shake_hands(context, address, name, within), 2 * within + _SLACK_S)
        return proof.certificate
    return None


def _advice(reason: str, section: str) -> str:
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            f"it may ask for a certificate of the gateway: 'cert' and 'key' in {section}; it must speak TLS 1.2 or 1.3"
        )
    if "ALERT" in reason and re.search("CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED", reason):
        return f"it does not accept the certificate of the gateway: 'cert' in {section}"
    if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason or "PACKET_LENGTH" in reason:
        return "the port does not speak TLS: write http://, or correct the port"
    return "see which versions and ciphers the service speaks: TLS 1.2 or 1.3 is needed"


def _words(failure: ssl.SSLError) -> str:
    return (failure.reason or str(failure)).lower().replace("_", " ")


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _wrong(well: Finding, says: str, advice: str) -> Finding:
    return Finding(well.check, "wrong", f"{well.says}, but {says}", advice)
