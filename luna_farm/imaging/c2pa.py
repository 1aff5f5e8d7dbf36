"""C2PA manifests: who made an image, by what, signed with the key of the farm's owner.

By c2pa-python, the library of the Content Authenticity Initiative, an optional package. A file is signed
last, in memory, before it is published. The key stays where it is: a PEM file that only this module reads, or
a program that signs what it is given (for PKCS#11, a cloud service, a hardware module). This module must
never put key material, or what such a program prints, into an error, a log or a report.

What is wrong with a key is a DiskError: a farm keeps the image and saves it once the key is mended.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from luna_farm import __version__
from luna_farm.config_provenance import SOURCE_TYPES, Signing
from luna_farm.errors import DiskError, EncodeError
from luna_farm.imaging.encoders import isobmff
from luna_farm.imaging.xmp import NEWSCODES

MIME_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
    "heic": "image/heic",
}
"""Formats that can carry a manifest."""
_INGREDIENT_TYPES = {
    **{f".{name}": kind for name, kind in MIME_TYPES.items()},
    ".jpg": "image/jpeg",
    ".tif": "image/tiff",
}
_COMMAND_TIMEOUT_S = 30
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
"""Without a thumbnail of what is in the file anyway. What was signed is verified by the tests."""


def sign(
    file: bytes,
    format: str,  # noqa: A002 - the word of the protocol
    signing: Signing,
    *,
    source_type: str,
    title: str = "",
    ingredient: str = "",
) -> bytes:
    """Return `file` with a manifest.

    format: of MIME_TYPES, else EncodeError. source_type: of `xmp.SOURCE_TYPES`. ingredient: path of the image
    that this one was made from, "" for none. Raises DiskError if certificate or key are missing, unreadable,
    expired, or do not belong together, or if the signing program fails; EncodeError where the package is not
    installed.
    """
    if format not in MIME_TYPES:
        allowed = ", ".join(MIME_TYPES)
        raise EncodeError(f"{format} holds no C2PA manifest; allowed: {allowed}, or provenance xmp or off")
    library = _library()
    failures: list[str] = []
    signer = _signer(library, signing, failures)

    def signed(given: bytes) -> bytes:
        builder = library.Builder(_manifest(format, source_type, title), _context())
        out = io.BytesIO()
        try:
            if ingredient:
                _add_ingredient(builder, ingredient)
            builder.sign(signer, MIME_TYPES[format], io.BytesIO(given), out)
        finally:
            builder.close()
        return out.getvalue()

    try:
        made = signed(file)
        if file[4:12] == b"ftypavis":
            made = _with_tracks(file, made, signed)
    except library.C2paError as error:
        raise _unusable(signing, failures[0] if failures else _why(error, signing)) from None
    finally:
        signer.close()
    return made


def _with_tracks(file: bytes, made: bytes, signed: Callable[[bytes], bytes]) -> bytes:
    """Sign a moving AVIF again, so that its tracks find their EXIF and XMP behind the manifest. The library
    reserves room for a signature, so that a manifest is of the same size each time."""
    moved = isobmff.shifted_track_items(file, len(made) - len(file))
    if moved == file:
        return made
    again = signed(moved)
    if len(again) != len(made):
        raise EncodeError("a moving AVIF cannot be signed here: its manifest is of another size each time")
    return again


def inside(path: str, folders: tuple[str, ...]) -> bool:
    """Return whether a file lies in one of these folders, links followed."""
    real = os.path.realpath(path)
    return any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders)


def ingredient_warning(path: str, signing: Signing) -> str:
    """Return why an input image is left out, "" if it is not."""
    name = Path(path).name
    if not inside(path, signing.input_dirs):
        return f"the input image {name} is not named in the manifest: it lies outside of c2pa_input_dirs"
    if Path(path).suffix.lower() not in _INGREDIENT_TYPES:
        return f"the input image {name} is not named in the manifest: its format carries none"
    if not os.access(path, os.R_OK):
        return f"the input image {name} is not named in the manifest: it cannot be read"
    return ""


def check(signing: Signing) -> None:
    """Raise DiskError if certificate and key cannot sign now, EncodeError where a package is missing."""
    _signer(_library(), signing, []).close()


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise EncodeError(
            'C2PA needs c2pa-python (pip install "luna-farm[c2pa]"); or provenance xmp'
        ) from error
    return c2pa


@lru_cache(maxsize=1)
def _context() -> Any:
    return _library().Context.from_dict(_SETTINGS)


def _manifest(format: str, source_type: str, title: str) -> dict[str, Any]:  # noqa: A002 - as above
    agent = {"name": "Luna Farm", "version": __version__}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": NEWSCODES + SOURCE_TYPES[source_type],
        "softwareAgent": agent,
    }
    return {
        "claim_generator_info": [agent],
        "title": title,
        "format": MIME_TYPES[format],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _add_ingredient(builder: Any, path: str) -> None:
    kind = _INGREDIENT_TYPES[Path(path).suffix.lower()]
    with open(path, "rb") as file:
        builder.add_ingredient({"title": Path(path).name, "relationship": "inputTo"}, kind, file)


def _signer(library: Any, signing: Signing, failures: list[str]) -> Any:
    """Return the signer. `failures` gets what went wrong in the signing program, as a sentence."""
    from luna_farm.imaging import c2pa_certificate

    if not signing.certificate or not (signing.key or signing.command):
        raise _unusable(signing, "c2pa_certificate and one of c2pa_key and c2pa_command must be set")
    chain = _read(signing, signing.certificate, "certificate")
    certificates = c2pa_certificate.load(chain)
    if not certificates:
        raise _unusable(signing, f"{signing.certificate} holds no certificate in PEM")
    private = b"" if signing.command else _private(signing, certificates)
    wrong = c2pa_certificate.wrong(certificates)
    if wrong:
        raise _unusable(signing, f"the certificate {signing.certificate} {wrong}")
    algorithm = c2pa_certificate.algorithm(certificates[0])
    try:
        if signing.command:
            return library.Signer.from_callback(
                _by_program(signing, certificates[0], failures),
                library.C2paSigningAlg[algorithm],
                chain.decode(),
                signing.timestamp_url or None,
            )
        info = library.C2paSignerInfo(
            alg=algorithm.lower().encode(),
            sign_cert=chain,
            private_key=private,
            ta_url=signing.timestamp_url.encode() or None,
        )
        return library.Signer.from_info(info)
    except library.C2paError as error:
        raise _unusable(signing, f"the key cannot be used ({type(error).__name__})") from None


def _private(signing: Signing, certificates: list[Any]) -> bytes:
    """Return the key in PEM, as PKCS#8; refuse one that cannot be read or is of another certificate."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as s

    from luna_farm.imaging import c2pa_certificate

    pem = _read(signing, signing.key, "key")
    try:
        private = s.load_pem_private_key(pem, None)
    except TypeError:
        how = "openssl pkcs8 -topk8 -nocrypt writes it without one, or c2pa_command signs by a program"
        raise _unusable(signing, f"the key {signing.key} is protected by a password: {how}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(signing, f"{signing.key} holds no private key in PEM") from None
    own = private.public_key().public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    keys = [c2pa_certificate.key_of(one) for one in certificates]
    if keys[0] not in (own, b""):  # the certificate of a key that is not known is refused as such
        belongs = [n for n, one in enumerate(keys, 1) if one == own]
        why = f", but to certificate {belongs[0]} in it, which must come first" if belongs else ""
        raise _unusable(signing, f"the key {signing.key} does not belong to {signing.certificate}{why}")
    # c2pa takes PKCS#8 only; OpenSSL also writes "EC PRIVATE KEY" and "RSA PRIVATE KEY".
    return private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())


def _why(error: Exception, signing: Signing) -> str:
    """Return why the library did not sign. Its words are about the certificate or the time service; with a
    program they could repeat what that printed."""
    service = f"; the time service is {signing.timestamp_url}" if signing.timestamp_url else ""
    return f"the image could not be signed ({type(error).__name__ if signing.command else error}{service})"


def _by_program(signing: Signing, leaf: Any, failures: list[str]) -> Callable[[bytes], bytes]:
    """Return what signs by the program. Of what it prints nothing is repeated but the signature."""
    from luna_farm.imaging import c2pa_certificate

    def run(data: bytes) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603 - named by the farm's owner in its configuration, never by a request
                shlex.split(signing.command),
                input=data,
                capture_output=True,
                check=False,
                timeout=_COMMAND_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return failed(f"did not end within {_COMMAND_TIMEOUT_S} s")
        except (OSError, ValueError, IndexError) as error:
            return failed(f"cannot be started ({getattr(error, 'strerror', None) or type(error).__name__})")
        if done.returncode:
            return failed(f"ended with exit code {done.returncode}")
        if not c2pa_certificate.verifies(leaf, done.stdout, data):
            how = f"{c2pa_certificate.algorithm(leaf)} by the key of {signing.certificate}"
            return failed(f"wrote {len(done.stdout)} bytes that are no signature: allowed: {how}")
        return done.stdout

    def failed(why: str) -> bytes:
        failures.append(f"the program of c2pa_command {why}")
        return b""  # an exception would be printed by the library

    return run


def _read(signing: Signing, path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unusable(signing, f"the {what} {path} cannot be read: {error.strerror}") from None


def _unusable(signing: Signing, why: str) -> DiskError:
    return DiskError(
        f"C2PA: {why}. Mend that, or set provenance to xmp or off. "
        "A farm keeps the image until then; without a farm it is not saved.",
        signing.key or signing.certificate,
    )
