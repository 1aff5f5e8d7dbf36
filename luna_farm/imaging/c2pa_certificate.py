"""What C2PA demands of a certificate, checked before anything is signed, so that an error says what is wrong.

The library refuses with "the certificate is invalid", or signs what no reader verifies (certificates that are
no chain, a signature by another key). Facts: C2PA 2.2, 14.5 (certificate profile) and 13.2 (algorithms). This
module must never see a private key.
"""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

_CURVES = {
    "secp256r1": ("ES256", hashes.SHA256()),
    "secp384r1": ("ES384", hashes.SHA384()),
    "secp521r1": ("ES512", hashes.SHA512()),
}
_HASHES = ("sha256", "sha384", "sha512")
_KEYS = "EC (P-256, P-384, P-521), Ed25519 or RSA of 2048 bits or more"
_PURPOSES = (
    Usage.EMAIL_PROTECTION,
    Usage.TIME_STAMPING,
    Usage.OCSP_SIGNING,
    x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36"),  # signs documents
    x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1"),  # signs claims of C2PA
    x509.ObjectIdentifier("1.3.6.1.4.1.311.76.59.1.9"),  # the same, of Microsoft's authority
)
_NAMED = {
    Usage.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
    Usage.SERVER_AUTH: "serverAuth",
    Usage.CLIENT_AUTH: "clientAuth",
    Usage.CODE_SIGNING: "codeSigning",
    Usage.EMAIL_PROTECTION: "emailProtection",
    Usage.TIME_STAMPING: "timeStamping",
    Usage.OCSP_SIGNING: "OCSPSigning",
}
_ALONE = (Usage.TIME_STAMPING, Usage.OCSP_SIGNING)
_PROFILE = (
    "it needs the extended key usage emailProtection, the key usage digitalSignature, an authority key "
    "identifier, and CA:FALSE"
)


def load(chain: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, the owner's own first; [] if there is none."""
    try:
        return x509.load_pem_x509_certificates(chain)
    except ValueError:
        return []


def wrong(chain: list[x509.Certificate]) -> str:
    """Return what keeps a chain from signing now, "" for nothing. It follows the name of the file: "expired
    on 2026-01-02"."""
    now, leaf = datetime.now(timezone.utc), chain[0]
    for number, one in enumerate(chain):
        which = "" if number == 0 else f"has a certificate ({_name(one.subject)}) that "
        if one.not_valid_after_utc < now:
            return f"{which}expired on {one.not_valid_after_utc.date()}"
        if one.not_valid_before_utc > now:
            return f"{which}is not valid before {one.not_valid_before_utc.date()}"
    if not algorithm(leaf):
        return f"is for another kind of key than {_KEYS}"
    return _of_another_profile(leaf) or _no_chain(chain)


def key_of(one: x509.Certificate) -> bytes:
    """Return the public key of a certificate in DER, b"" for a kind that is not known."""
    try:
        return one.public_key().public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    except (UnsupportedAlgorithm, ValueError):
        return b""


def algorithm(leaf: x509.Certificate) -> str:
    """Return C2PA's name of how the key of a certificate signs, "" for a key that it does not take."""
    try:
        public = leaf.public_key()
    except (UnsupportedAlgorithm, ValueError):  # a curve that the library does not know
        return ""
    if isinstance(public, ec.EllipticCurvePublicKey):
        return _CURVES[public.curve.name][0] if public.curve.name in _CURVES else ""
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048:
        return "PS256"
    return "ED25519" if isinstance(public, ed25519.Ed25519PublicKey) else ""


def verifies(leaf: x509.Certificate, signature: bytes, data: bytes) -> bool:
    """Whether a signature of `data` is one by the key of the certificate.

    EC: in DER, or both numbers behind one another, as PKCS#11 has them.
    """
    public: Any = leaf.public_key()
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            half = (public.curve.key_size + 7) // 8
            if len(signature) == 2 * half:
                pair = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
                signature = utils.encode_dss_signature(*pair)
            public.verify(signature, data, ec.ECDSA(_CURVES[public.curve.name][1]))
        elif isinstance(public, rsa.RSAPublicKey):
            digest = hashes.SHA256()
            public.verify(signature, data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        else:
            public.verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _of_another_profile(leaf: x509.Certificate) -> str:
    """Return which demand of C2PA on the signer's own certificate is not met, "" for none."""
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        issued = "by itself (self-signed)" if leaf.issuer == leaf.subject else f"by {_name(leaf.issuer)}"
        return (
            f"begins with the certificate of an authority (CA:TRUE), issued {issued}; C2PA takes one for "
            f"signing that an authority issued, which may be your own: {_PROFILE}"
        )
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        return f"has no key usage digitalSignature; {_PROFILE}"
    purposes = list(_extension(leaf, x509.ExtendedKeyUsage) or ())
    if not purposes:
        return f"has no extended key usage; {_PROFILE}"
    if Usage.ANY_EXTENDED_KEY_USAGE in purposes or not any(one in _PURPOSES for one in purposes):
        return f"is for another purpose ({', '.join(map(_purpose, purposes))}); {_PROFILE}"
    if len(purposes) > 1 and any(one in _ALONE for one in purposes):
        named = ", ".join(map(_purpose, purposes))
        return f"is for several purposes ({named}), of which timeStamping and OCSPSigning must stand alone"
    if _extension(leaf, x509.AuthorityKeyIdentifier) is None and leaf.issuer != leaf.subject:
        return f"has no authority key identifier; {_PROFILE}"
    return ""


def _no_chain(chain: list[x509.Certificate]) -> str:
    """Return which certificate was not issued by the one behind it, "" for none."""
    for one, issuer in pairwise(chain):
        weak = _weak_hash(one)
        if weak:
            return (
                f"has a signature with {weak} ({_name(one.subject)}); C2PA takes SHA-256, SHA-384 and SHA-512"
            )
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return (
                f"is no chain: {_name(issuer.subject)} did not issue {_name(one.subject)}, which names "
                f"{_name(one.issuer)}; the owner's own certificate comes first, then its issuer"
            )
    return ""


def _weak_hash(one: x509.Certificate) -> str:
    """Return the name of a hash that C2PA does not take in the signature of a certificate, "" for others."""
    try:
        used = one.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "another hash"
    return "" if used is None or used.name in _HASHES else used.name.upper().replace("SHA", "SHA-")


def _extension(one: x509.Certificate, kind: Any) -> Any:
    try:
        return one.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None


def _name(name: x509.Name) -> str:
    return name.rfc4514_string() or "a certificate without a name"


def _purpose(purpose: x509.ObjectIdentifier) -> str:
    return _NAMED.get(purpose, purpose.dotted_string)
