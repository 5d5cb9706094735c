"""Certificates for tests: an authority of our own and what it vouches for, as files in PEM."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat


class Pair(NamedTuple):
    """Files of a certificate and of its key."""

    cert: Path
    key: Path


class Authority:
    """Vouches for who asks."""

    def __init__(self, folder: Path, name: str = "authority", *, of: "Authority | None" = None) -> None:
        """`of`: the authority that vouches for this one, if it is not at the root."""
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.file = folder / f"{name}.pem"
        above = self if of is None else of
        builder = above._builder(self._name, self._key.public_key(), 3650)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        self._certificate = builder.sign(above._key, hashes.SHA256())
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] | None = None,
        uris: tuple[str, ...] = (),
        days: float = 30,
        passphrase: bytes = b"",
        at: str = "",
    ) -> Pair:
        """A certificate for `hosts` (else `name` and 127.0.0.1) that is valid for so many days from a day ago on, in
        files called `at` (else by the name). `uris` are names too.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(each) for each in ((name,) if hosts is None else hosts)]
        addresses = [x509.IPAddress(IPv4Address("127.0.0.1"))] if hosts is None else []
        builder = self._builder(_name(name), key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        more = [x509.UniformResourceIdentifier(each) for each in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName([*names, *addresses, *more]), critical=False)
        pair = Pair(self._folder / f"{at or name}.crt", self._folder / f"{at or name}.key")
        pair.cert.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        return pair

    def revoke(self, *pairs: Pair, days: float = 30) -> Path:
        """The list of these, valid for so many days from a day ago on, in a file in place of the one before."""
        yesterday = datetime.now(UTC) - timedelta(days=1)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(yesterday)
        builder = builder.next_update(yesterday + timedelta(days=days))
        for pair in pairs:
            serial = x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(yesterday).build()
            builder = builder.add_revoked_certificate(revoked)
        written = self.file.with_suffix(".new")
        written.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return written.replace(self.file.with_suffix(".crl"))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: float) -> x509.CertificateBuilder:
        """With what RFC 5280 asks for: since Python 3.13 clients refuse certificates without it."""
        yesterday = datetime.now(UTC) - timedelta(days=1)
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
            .not_valid_before(yesterday)
            .not_valid_after(yesterday + timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(by, critical=False)
        )

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts this authority alone and offers HTTP/1.1."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # or a cut would look like an orderly end
        context.set_alpn_protocols(["http/1.1"])
        return context


def serving(pair: Pair, *, clients: Authority | None = None) -> ssl.SSLContext:
    """A server's context; `clients` vouches for those that are let in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.load_cert_chain(pair.cert, pair.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.file)
    return context


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
