"""Short-lived certificates: a private authority with a server certificate, and the certificate of a token signer."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class KeyPair:
    """The files of a certificate and of its key, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class PrivateAuthority:
    certificate: Path
    server: KeyPair


def make_authority(folder: Path) -> PrivateAuthority:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    root = (
        _builder("e2e private authority", "e2e private authority", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_signs_certificates(), critical=True)
    )
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    # From Python 3.13 on, a certificate that does not name its issuer's key is refused by default.
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    leaf = (
        _builder("127.0.0.1", "e2e private authority", key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
    )
    authority = _write(folder / "authority", root.sign(authority_key, hashes.SHA256()), authority_key)
    server = _write(folder / "server", leaf.sign(authority_key, hashes.SHA256()), key)
    return PrivateAuthority(authority.certificate, server)


def make_signer(folder: Path) -> KeyPair:
    """Self-signed and RSA: docker-registry takes it as a root and checks RS256 with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = _builder("e2e token signer", "e2e token signer", key)
    return _write(folder / "signer", certificate.sign(key, hashes.SHA256()), key)


def _builder(subject: str, issuer: str, key: PrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=12))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write(stem: Path, certificate: x509.Certificate, key: PrivateKey) -> KeyPair:
    pair = KeyPair(stem.with_suffix(".crt"), stem.with_suffix(".key"))
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair
