"""Lists of certificates that their authorities have taken back (RFC 5280 §5), from a file to a TLS context.

Checked for every certificate of a chain, the authority's own included: a chain for one of whose authorities there is no
list, or only one that has expired, is refused. What would have everybody refused is reported where the file is named.
"""

from __future__ import annotations

import re
import ssl
import tempfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from castlegate.config.report import Place
from castlegate.wire.certificates import read_file, refuse_file

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def load_revoked(context: ssl.SSLContext, at: Place, file: str, authorities: list[Certificate]) -> None:
    """Have the context refuse what the lists in a file name; `authorities` are those that it trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = read_file(at, file)
    if pem is None:
        return
    try:
        lists = [x509.load_pem_x509_crl(each) for each in _LIST.findall(pem)]
    except ValueError:
        lists = []
    if not lists:
        refuse_file(at, file, "which holds no list of revoked certificates in PEM, or one that cannot be read")
        return
    if not _complete(at, file, lists, authorities):
        return
    # `ssl` reads lists from files only. Not from this one: certificates in it would be trusted.
    with tempfile.NamedTemporaryFile(suffix=".pem") as written:
        written.write(b"".join([each.public_bytes(Encoding.PEM) for each in lists]))
        written.flush()
        try:
            context.load_verify_locations(cafile=written.name)
        except ssl.SSLError as error:
            refuse_file(at, file, f"which OpenSSL refuses: {error.reason or error}")
            return
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    for each in lists:
        _warn_of_dates(each, at, file)


def _complete(at: Place, file: str, lists: list[CertificateRevocationList], authorities: list[Certificate]) -> bool:
    """Whether each authority has a list, and signed it."""
    by_issuer = {each.issuer: each for each in lists}
    for authority in authorities:
        name = authority.subject.rfc4514_string()
        found = by_issuer.get(authority.subject)
        if found is None:
            refuse_file(at, file, f"which holds no list of {name}: all that it vouches for would be refused")
            return False
        if not any(
            each.is_signature_valid(other.public_key())  # type: ignore[arg-type]
            for each in lists
            if each.issuer == authority.subject
            for other in authorities
            if other.subject == authority.subject
        ):
            refuse_file(at, file, f"whose list of {name} is not signed by it")
            return False
    return True


def _warn_of_dates(revoked: CertificateRevocationList, at: Place, file: str) -> None:
    now, end, name = datetime.now(UTC), revoked.next_update_utc, revoked.issuer.rfc4514_string()
    if end is not None and end < now:
        at.warning(
            f"found {at.shown(file)}, whose list of {name} has expired on {end:%Y-%m-%d}: "
            "all that it vouches for are refused until there is a new one"
        )
    elif revoked.last_update_utc > now:
        at.warning(
            f"found {at.shown(file)}, whose list of {name} is valid from {revoked.last_update_utc:%Y-%m-%d} on only"
        )
