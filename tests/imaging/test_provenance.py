"""Marks of generated images: XMP read by exiftool, C2PA manifests verified by the library's reader."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luna_farm.config_provenance import AIGC_FIELDS, AIGC_LIMIT, SOURCE_TYPES, Signing, aigc_fields
from luna_farm.core.formats import ANIMATED
from luna_farm.errors import DiskError, EncodeError, InvalidRequest
from luna_farm.imaging import c2pa, xmp
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.encoders.animated import encode_animation
from luna_farm.imaging.metadata import NOTHING, embed
from luna_farm.testing import readers

TIME = "2025-11-22T10:11:12+00:00"
AIGC = {"ContentProducer": "001191110102MACQD9K64010000", "ProduceID": "a<b>&c"}
MODULES = {"jxl": "imagecodecs", "heic": "pillow_heif"}
EXIFTOOL = shutil.which("exiftool")
SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}


def _encoded(options, task, pixels, name, **changes):
    if name in MODULES:
        pytest.importorskip(MODULES[name], reason=f"{name} needs this optional package")
    job = options(timestamp=TIME, **changes)
    return b"".join(encode(pixels, name, job, embed(job, task())).buffers), job


def _exiftool(tmp_path, file, name):
    if EXIFTOOL is None:
        pytest.skip("exiftool is not installed here")
    place = tmp_path / f"a.{SUFFIXES.get(name, name)}"
    place.write_bytes(file)
    done = subprocess.run([EXIFTOOL, "-j", "-G1", str(place)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)[0]


@pytest.mark.parametrize(("given", "word"), SOURCE_TYPES.items())
@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif", "tiff", "jxl", "heic"])
def test_exiftool_reads_how_an_image_was_made(options, task, picture, tmp_path, name, given, word):
    pixels = picture(40, 30, 3)
    changes = {"provenance": "xmp", "source_type": given, "aigc": json.dumps(AIGC)}
    file, _ = _encoded(options, task, pixels, name, **changes)
    said = _exiftool(tmp_path, file, name)
    assert said["XMP-iptcExt:DigitalSourceType"] == xmp.NEWSCODES + word
    assert said["XMP-xmp:CreatorTool"] == xmp.CREATOR_TOOL
    assert said["XMP-xmp:CreateDate"].startswith("2025:11:22 10:11:12")
    fields = next(value for key, value in said.items() if key.lower().endswith(":aigc"))
    assert {**json.loads(fields)} == {
        "Label": "1",
        **dict.fromkeys(AIGC_FIELDS[1:], ""),
        **AIGC,
    }


@pytest.mark.parametrize("name", ["png", "webp", "avif"])
@pytest.mark.parametrize("provenance", ["off", "xmp"])
def test_the_frontend_still_loads_the_workflow(options, task, picture, name, provenance):
    for width in (30, 31, 32, 33):
        file, job = _encoded(options, task, picture(40, width, 4), name, provenance=provenance)
        texts = getattr(readers, f"{name}_texts")(file)
        workflow = texts["workflow"]
        assert (json.loads(workflow) if isinstance(workflow, str) else workflow) == json.loads(
            job.extra_pnginfo
        )["workflow"]
        assert (b"DigitalSourceType" in file) == (provenance == "xmp")


def test_the_packet_is_small_and_says_nothing_else(options, task, picture):
    full = dict.fromkeys(AIGC_FIELDS, "x" * AIGC_LIMIT)
    assert len(xmp.packet("composite", TIME, AIGC)) < 1200
    assert len(xmp.packet("composite", TIME, full)) < 2048
    assert len(xmp.packet("generated")) < 700
    assert b"CreateDate" not in xmp.packet("generated")
    bare, _ = _encoded(options, task, picture(9, 9, 3), "png")
    marked, _ = _encoded(options, task, picture(9, 9, 3), "png", provenance="xmp")
    assert len(marked) - len(bare) < 2048


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"Colour": "1"}', '{"Label": 1}', '{"Label": "%s"}' % ("x" * 151), '{"Label": "a\\n"}'],
)
def test_other_fields_are_refused(text):
    with pytest.raises(InvalidRequest, match="aigc"):
        aigc_fields(text)


def test_no_fields():
    assert aigc_fields(" ") == {}


def test_exr_reports_that_it_holds_no_mark(options, picture):
    pytest.importorskip("OpenEXR", reason="EXR needs OpenEXR")
    encoded = encode(picture(9, 9, 3), "exr", options(provenance="xmp"), NOTHING)
    assert "does not say how the image was made" in encoded.warnings[-1]


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("cryptography", reason="certificates are made with cryptography")
    return pytest.importorskip("c2pa", reason="C2PA needs c2pa-python")


@pytest.fixture
def signing(library, tmp_path):
    from certificates import make

    return Signing(*make(tmp_path / "keys"))


def _manifest(library, file, name):
    """Return the verified manifest: the only thing that is not proven is who the test's root is."""
    with library.Reader(c2pa.MIME_TYPES[name], io.BytesIO(file)) as reader:
        failures = [
            failure["code"] for failure in reader.get_validation_results()["activeManifest"]["failure"]
        ]
        assert failures == ["signingCredential.untrusted"]
        assert reader.get_validation_state() == "Valid"
        return reader.get_active_manifest()


@pytest.mark.parametrize("name", c2pa.MIME_TYPES)
def test_a_signed_file_is_verified_and_still_the_same_image(
    library, signing, options, task, picture, tmp_path, name
):
    pixels = picture(40, 31, 3)
    file, job = _encoded(options, task, pixels, name, provenance="c2pa")
    signed = c2pa.sign(file, name, signing, source_type="generated", title="a.png")
    manifest = _manifest(library, signed, name)
    actions = next(a["data"] for a in manifest["assertions"] if a["label"] == "c2pa.actions.v2")
    action = actions["actions"][0]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == xmp.NEWSCODES + "trainedAlgorithmicMedia"
    assert manifest["claim_generator_info"][0]["name"] == "Luna Farm"
    assert len(signed) - len(file) < 8192
    if name != "heic":
        with Image.open(io.BytesIO(file)) as before, Image.open(io.BytesIO(signed)) as after:
            assert np.array_equal(np.asarray(before), np.asarray(after))
    if name in ("png", "webp", "avif"):
        texts = getattr(readers, f"{name}_texts")(signed)
        workflow = texts["workflow"]
        found = json.loads(workflow) if isinstance(workflow, str) else workflow
        assert found == json.loads(job.extra_pnginfo)["workflow"]
    assert "trainedAlgorithmicMedia" in _exiftool(tmp_path, signed, name)["XMP-iptcExt:DigitalSourceType"]


@pytest.mark.parametrize("name", ANIMATED)
def test_a_signed_moving_image_shows_its_frames_and_finds_its_metadata(
    library, signing, options, task, tmp_path, name
):
    frames = np.stack([np.full((20, 30, 3), 40 * n, np.uint8) for n in range(3)])
    job = options(provenance="xmp")
    embedded = embed(job, task(format=name))
    file = b"".join(encode_animation(frames, name, job, embedded, fps=5).buffers)
    signed = c2pa.sign(file, name, signing, source_type="generated")
    _manifest(library, signed, name)
    with Image.open(io.BytesIO(signed)) as image, Image.open(io.BytesIO(file)) as before:
        for index in range(3):
            image.seek(index)
            before.seek(index)
            assert np.array_equal(np.asarray(image), np.asarray(before))
        for key in () if name == "png" else ("exif", "xmp"):
            assert image.info[key] == before.info[key]
    assert "trainedAlgorithmicMedia" in _exiftool(tmp_path, signed, name)["XMP-iptcExt:DigitalSourceType"]


def test_a_changed_pixel_breaks_the_signature(library, signing, options, task, picture):
    file, _ = _encoded(options, task, picture(40, 30, 3), "png")
    signed = bytearray(c2pa.sign(file, "png", signing, source_type="generated"))
    signed[-40] ^= 1
    with library.Reader("image/png", io.BytesIO(bytes(signed))) as reader:
        assert reader.get_validation_state() == "Invalid"


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ED25519", "PS256"])
def test_every_kind_of_key(library, options, task, picture, tmp_path, algorithm):
    from certificates import make

    file, _ = _encoded(options, task, picture(9, 9, 3), "png")
    signing = Signing(*make(tmp_path / "keys", algorithm))
    _manifest(library, c2pa.sign(file, "png", signing, source_type="composite"), "png")


def test_an_input_image_is_an_ingredient(library, signing, options, task, picture, tmp_path):
    given = tmp_path / "input" / "cat.png"
    given.parent.mkdir()
    Image.fromarray(picture(20, 20, 3)).save(given)
    file, _ = _encoded(options, task, picture(40, 30, 3), "png")
    signed = c2pa.sign(file, "png", signing, source_type="composite", ingredient=str(given))
    (ingredient,) = _manifest(library, signed, "png")["ingredients"]
    assert (ingredient["title"], ingredient["relationship"]) == ("cat.png", "inputTo")


def test_input_images_are_read_from_their_folders_only(tmp_path):
    inside, outside = tmp_path / "input", tmp_path / "secret"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"")
    (inside / "link.png").symlink_to(outside / "a.png")
    (inside / "a.txt").write_bytes(b"")
    signing = Signing(input_dirs=(str(inside),))
    assert c2pa.ingredient_warning(str(inside / "a.png"), signing) == ""
    for path in (outside / "a.png", inside / "link.png", inside / ".." / "secret" / "a.png"):
        assert "outside of c2pa_input_dirs" in c2pa.ingredient_warning(str(path), signing)
    assert "carries none" in c2pa.ingredient_warning(str(inside / "a.txt"), signing)
    assert "cannot be read" in c2pa.ingredient_warning(str(inside / "b.png"), signing)


SIGNER = """
import sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read(), ec.ECDSA(hashes.SHA256())))
"""


def _program(tmp_path, source, *arguments, name="signer"):
    script = tmp_path / f"{name}.py"
    script.write_text(source)
    return shlex.join([sys.executable, str(script), *arguments])


def test_a_program_signs(library, signing, options, task, picture, tmp_path):
    file, _ = _encoded(options, task, picture(9, 9, 3), "jpeg")
    by_program = Signing(signing.certificate, command=_program(tmp_path, SIGNER, signing.key))
    _manifest(library, c2pa.sign(file, "jpeg", by_program, source_type="generated"), "jpeg")


def _wrong(tmp_path, signing):
    """Make each thing that can be wrong with a key, and say what the error must name."""
    from certificates import make

    other = make(tmp_path / "other")
    expired = make(tmp_path / "expired", days=-1, begins=-30)
    early = make(tmp_path / "early", days=30, begins=5)
    text = tmp_path / "text.pem"
    text.write_text("SECRET-MATERIAL")
    programs = {
        name: Signing(signing.certificate, command=_program(tmp_path, source, other[1], name=name))
        for name, source in {
            "fails": "import sys; sys.exit('SECRET-MATERIAL')",
            "silent": "",
            "babbles": "print('SECRET-MATERIAL' * 9)",
            "stranger": SIGNER,
        }.items()
    }
    return {
        "must be set": Signing(),
        "the key .* cannot be read: No such file": Signing(signing.certificate, str(tmp_path / "no")),
        "the certificate .* cannot be read": Signing(str(tmp_path / "no"), signing.key),
        "expired on": Signing(*expired),
        "not valid before": Signing(*early),
        "does not belong to": Signing(signing.certificate, other[1]),
        "holds no private key": Signing(signing.certificate, str(text)),
        "holds no certificate": Signing(str(text), signing.key),
        "c2pa_command ended with exit code 1": programs["fails"],
        "c2pa_command wrote 0 bytes that are no signature": programs["silent"],
        "c2pa_command wrote 136 bytes that are no signature": programs["babbles"],
        "c2pa_command wrote 7. bytes that are no signature.*ES256 by the key of": programs["stranger"],
        "c2pa_command cannot be started .No such file": Signing(signing.certificate, command="/no/such"),
        "c2pa_command cannot be started": Signing(signing.certificate, command="sign 'unfinished"),
    }


def test_what_is_wrong_with_a_key_is_said_without_the_key(
    library, signing, options, task, picture, tmp_path, caplog, capfd
):
    file, _ = _encoded(options, task, picture(9, 9, 3), "png")
    for said, wrong in _wrong(tmp_path, signing).items():
        with pytest.raises(DiskError, match=rf"C2PA: .*{said}.*A farm keeps the image until then") as caught:
            c2pa.sign(file, "png", wrong, source_type="generated")
        chain = [str(caught.value), str(caught.value.__cause__), caplog.text, *capfd.readouterr()]
        assert not [text for text in chain if "SECRET-MATERIAL" in text or "PRIVATE KEY" in text]
    c2pa.check(signing)


def _unfit(folder):
    """Make each certificate that C2PA does not take, and say what the error must name."""
    from certificates import make
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

    kinds = {
        r"an authority \(CA:TRUE\), issued by itself \(self-signed\)": {
            "authority": True,
            "self_signed": True,
        },
        r"an authority \(CA:TRUE\), issued by CN=Test Root": {"authority": True},
        "no key usage digitalSignature": {"signs": False},
        "no extended key usage": {"purposes": ()},
        r"another purpose \(serverAuth\); .*emailProtection": {"purposes": (Usage.SERVER_AUTH,)},
        r"another purpose \(codeSigning\)": {"purposes": (Usage.CODE_SIGNING,)},
        r"another purpose \(anyExtendedKeyUsage": {"purposes": (Usage.ANY_EXTENDED_KEY_USAGE,)},
        r"another purpose \(1.2.3.4\)": {"purposes": (x509.ObjectIdentifier("1.2.3.4"),)},
        "must stand alone": {"purposes": (Usage.TIME_STAMPING, Usage.EMAIL_PROTECTION)},
        "no authority key identifier": {"names_issuer": False},
        "another kind of key than EC": {"algorithm": "SMALL"},
    }
    for number, (said, how) in enumerate(kinds.items()):
        yield said, Signing(*make(folder / str(number), **how))
    own, other = make(folder / "own"), make(folder / "other")
    first, root = _certificates(own[0])
    Path(own[0]).write_text(first + _certificates(other[0])[1])
    yield r"is no chain: CN=Test Root.* did not issue CN=Test Signer", Signing(*own)
    Path(own[0]).write_text(root + first)
    yield "but to certificate 2 in it, which must come first", Signing(*own)
    for said, change in _changed_bytes().items():
        path, key = make(folder / said[:5])
        Path(path).write_text(_changed(_certificates(path)[0], *change) + _certificates(path)[1])
        yield said, Signing(path, key)
    old = make(folder / "old", root_days=-1)
    yield r"has a certificate \(CN=Test Root.*\) that expired on", Signing(*old)


def _changed_bytes():
    """Names of algorithms (OIDs) in a certificate, and by what others a certificate may name them."""
    ecdsa, hashed = (
        bytes.fromhex("2a8648ce3d0403"),
        (b"\x02", b"\x01"),
    )  # with SHA-256, with SHA-224
    curve = bytes.fromhex("2a8648ce3d030107")
    return {
        "another kind of key than EC": (curve, curve[:-1] + b"\x63"),
        r"has a signature with SHA-224 \(CN=Test Signer": (ecdsa + hashed[0], ecdsa + hashed[1]),
    }


def _changed(pem, old, new):
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization as s

    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(s.Encoding.DER)
    assert old in der
    text = base64.encodebytes(der.replace(old, new)).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def _certificates(path):
    end = "-----END CERTIFICATE-----\n"
    return [part + end for part in Path(path).read_text().split(end) if part]


def test_a_certificate_that_c2pa_does_not_take_is_explained(library, options, task, picture, tmp_path):
    file, _ = _encoded(options, task, picture(9, 9, 3), "png")
    for said, unfit in _unfit(tmp_path):
        with pytest.raises(DiskError, match=f"C2PA: .*{said}.*A farm keeps the image until then"):
            c2pa.sign(file, "png", unfit, source_type="generated")


@pytest.mark.parametrize("purpose", ["EMAIL_PROTECTION", "TIME_STAMPING", "OCSP_SIGNING"])
def test_other_certificates_sign(library, options, task, picture, tmp_path, purpose):
    from certificates import make
    from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

    file, _ = _encoded(options, task, picture(9, 9, 3), "png")
    signing = Signing(*make(tmp_path / "keys", purposes=(getattr(Usage, purpose),)))
    _manifest(library, c2pa.sign(file, "png", signing, source_type="generated"), "png")
    lone = Signing(*make(tmp_path / "lone", self_signed=True))
    _manifest(library, c2pa.sign(file, "png", lone, source_type="generated"), "png")


def test_a_time_service_that_does_not_answer_is_named(library, signing, options, task, picture):
    file, _ = _encoded(options, task, picture(9, 9, 3), "png")
    nowhere = replace(signing, timestamp_url="http://127.0.0.1:9/")
    with pytest.raises(DiskError, match=r"the time service is http://127.0.0.1:9/"):
        c2pa.sign(file, "png", nowhere, source_type="generated")


def test_a_key_with_a_password_is_refused(library, signing, options, task, picture, tmp_path):
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(Path(signing.key).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    how = s.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, how))
    with pytest.raises(DiskError, match="protected by a password"):
        c2pa.check(Signing(signing.certificate, str(locked)))


def test_a_mended_key_is_noticed(library, signing, tmp_path):
    kept = Path(signing.key).read_bytes()
    Path(signing.key).unlink()
    with pytest.raises(DiskError):
        c2pa.check(signing)
    Path(signing.key).write_bytes(kept)
    c2pa.check(signing)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(EncodeError, match=r"luna-farm\[c2pa\]"):
        c2pa.check(Signing())


@pytest.mark.parametrize("name", ["exr", "jxl"])
def test_a_format_without_a_place_for_it(name):
    with pytest.raises(EncodeError, match=f"{name} holds no C2PA manifest; allowed: png"):
        c2pa.sign(b"", name, Signing(), source_type="generated")
