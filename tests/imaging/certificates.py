"""Certificates and keys as a signer of C2PA manifests needs them: made anew for each test run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS: dict[str, Any] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ED25519": ed25519.Ed25519PrivateKey.generate,
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "SMALL": lambda: rsa.generate_private_key(65537, 1024),
}


def make(
    folder: Path,
    algorithm: str = "ES256",
    days: int = 30,
    begins: int = -1,
    root_days: int = 4000,
    **leaf: Any,
) -> tuple[str, str]:
    """Write chain.pem and key.pem into `folder` and return both paths. `begins`, `days`: days from now.

    leaf: of `_certificate`. `self_signed=True` makes a chain of one.
    """
    root_key, key = ec.generate_private_key(ec.SECP256R1()), KEYS[algorithm]()
    root = _certificate("Test Root", "Test Root", root_key, root_key, -400, root_days, authority=True)
    if leaf.pop("self_signed", False):
        chain = [_certificate("Test Signer", "Test Signer", key, key, begins, days, **leaf)]
    else:
        chain = [_certificate("Test Signer", "Test Root", key, root_key, begins, days, **leaf), root]
    return written(folder, key, chain)


def written(folder: Path, key: Any, certificates: list[x509.Certificate]) -> tuple[str, str]:
    """Write a chain and a key into `folder` and return both paths."""
    folder.mkdir(exist_ok=True)
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(one.public_bytes(s.Encoding.PEM) for one in certificates))
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    return str(chain), str(private)


def _certificate(
    name: str,
    issuer: str,
    key: Any,
    issuer_key: Any,
    begins: int,
    days: int,
    *,
    authority: bool = False,
    signs: bool = True,
    purposes: tuple[Any, ...] = (ExtendedKeyUsageOID.EMAIL_PROTECTION,),
    names_issuer: bool = True,
) -> x509.Certificate:
    now = datetime.now(timezone.utc)
    usage = {
        "digital_signature": signs,
        "key_cert_sign": authority,
        "crl_sign": authority,
        **dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        ),
        "encipher_only": False,
        "decipher_only": False,
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if names_issuer:
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(known, critical=False)
    if purposes and not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )
