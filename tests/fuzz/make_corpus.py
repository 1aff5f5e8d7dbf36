"""Writes the corpus: a few honest inputs for each target, and what once was a finding.

Run it by hand after the protocol or a format has changed: python tests/fuzz/make_corpus.py
"""

from __future__ import annotations

import io
import json
import struct
import sys
import tempfile
from pathlib import Path

import msgpack
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from targets import CORPUS

from luna_farm.core import frames, protocol
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.imaging import metadata
from luna_farm.imaging.encoders import encode
from luna_farm.storage.journal import Journal

PROMPT = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 42, "api_key": "hunter2-hunter2", "model": ["4", 0]}}
}
WORKFLOW = {
    "nodes": [{"id": 3, "properties": {"Node name for S&R": "KSampler"}, "widgets_values": [42, "sk-x"]}]
}
SUBMIT = {
    "cmd": "save_images_async",
    "id": 7,
    "request_id": "0123456789abcdef",
    "output_dir": "/out",
    "save_path": "a/%model_name%",
    "filename": "%time:YYYY-mm-dd%_%seed%",
    "model_name": "flux/dev.safetensors",
    "quality_gate": "both",
    "timestamp": "2026-01-02T03:04:05+00:00",
    "prompt": json.dumps(PROMPT),
    "images": [{"affix": "RAW", "format": "png", "subdir": True, "shape": [2, 64, 64, 3]}],
    "want": [24576],
}


def deep(levels: int) -> bytes:
    """Nested lists that claim 4,000 items each."""
    return b"\x81\xa6images" + b"\xdc\x0f\xa0" * levels


def pictures() -> dict[str, bytes]:
    """A file of each format with metadata."""
    options = SaveOptions("/out", prompt=json.dumps(PROMPT), extra_pnginfo=json.dumps({"workflow": WORKFLOW}))
    made = {}
    for kind in ("png", "webp", "jpeg", "avif", "tiff"):
        task = ImageTask("fuzzfuzz", 0, "RAW", kind, 0, 1, f"/out/a.{kind}", "shm:x", 0, 8, 8, 3)
        pixels = np.zeros((8, 8, 3), np.uint8)
        made[kind] = b"".join(
            map(bytes, encode(pixels, kind, options, metadata.embed(options, task)).buffers)
        )
    return made


def journal(records: list[dict[str, object]]) -> bytes:
    """The bytes of a journal with these records."""
    with tempfile.TemporaryDirectory() as home:
        made, _ = Journal.open(Path(home) / "journal")
        for record in records:
            made.append(record)
        made.close()
        return (Path(home) / "journal").read_bytes()


def exif(file: bytes) -> bytes:
    """The EXIF block of a JPEG."""
    at = file.index(b"Exif\0\0") + 6
    return file[at : at + struct.unpack(">H", file[at - 8 : at - 6])[0] - 8]


def contents() -> dict[str, dict[str, bytes]]:
    """Target -> name -> bytes."""
    hello = frames.encode({**protocol.hello("t" * 43, 4711), "id": 1})
    submit = frames.encode(SUBMIT)
    files = pictures()
    whole = journal([{"r": "job", "job_id": "a1b2c3d4", "images": [{"x": 1}]}, {"r": "worker", "pid": 5}])
    plain = json.dumps(PROMPT).encode()
    return {
        "frame_decoder": {
            "hello": b"\x03" + hello,
            "two": b"\xff" + hello + frames.encode({"cmd": "ping", "id": 2}),
            "http": b"\xffGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "tls": b"\x05" + bytes.fromhex("1603010200010001fc0303"),
            "pickle": b"\x05\x80\x04\x95\x0c\x00\x00\x00",
            "claims": b"\xff" + struct.pack(">I", 3008) + deep(1000),
            "extension": b"\xff" + struct.pack(">I", 6) + b"\x81\xa1x\xd4\x01\x00",
            "trailing": b"\xff" + struct.pack(">I", 2) + b"\x80\xc0",
        },
        "message_schema": {
            "submit": submit[4:],
            "lease": msgpack.packb({"cmd": "lease", "sizes": [1, 2**40], "leases": [1], "want": []}),
            "deep": b"\x81\xa6images" + b"\x91" * 900 + b"\x01",
            "wide": msgpack.packb({"cmd": "x" * 65, "images": [{"shape": [2**63, 2**63, 1, 3]}]}),
            "seal": msgpack.packb(
                {"cmd": "seal", "id": 1, "parts": [[1, 1]], "inline": True, "sizes": [192]}
            ),
        },
        "token_language": {
            "usual": "\x1f".join(("a/%model_name%", "%time:YYYY%_%seed%", "m.ckpt", "RAW")).encode()
            + b"\x1f"
            + plain,
            "up": "\x1f".join(("../..\\..//%3.api_key%", "CON.", "../x", "..")).encode(),
            "odd": "\x1f".join(
                ("\u202ea\u0000/C:\\x", "%date:yyyy%%%%", "\\\\server\\share", "é" * 300)
            ).encode(),
            "widget": b"%KSampler.seed%/%KSampler.model%\x1f%counter%%batch%%index%%width%\x1f\x1f\x1f"
            + plain,
            "long": ("/".join(["x" * 250] * 4) + "\x1f" + "😀" * 90).encode(),
            "dots": b". . ./ ../.. \x1f...\x1f\x1fNUL",
        },
        "metadata_readers": {
            **files,
            "exif": exif(files["jpeg"]),
            "avif-deep": files["avif"].replace(b"prompt:{", b"prompt:" + b"[" * 20),
            "png-cut": files["png"][:60],
        },
        "metadata_writer": {
            "usual": b"\x1f".join(
                (plain, json.dumps({"workflow": WORKFLOW}).encode(), b'{"steps":20}', b'"x"')
            ),
            "odd-numbers": b'{"a":NaN,"b":1e999,"c":-Infinity}\x1f{"workflow":[1e400]}\x1f{"cfg":NaN}\x1fNaN',
            "deep": b"[" * 2000 + b"\x1f" + b'{"a":' * 500 + b"\x1f[]\x1f1",
            "secrets": b'{"token":["a",0],"x":"Bearer 0123456789abcdef"}\x1f{"api_key":{"a":"https://u:p@h"}}',
            "surrogates": b'{"a":"\\ud800","\\udc00":1}\x1f\xff\xfe\x1f{"prompt":2}\x1f"\\ud83d"',
        },
        "journal_reader": {
            "whole": whole,
            "cut": whole[:-3],
            "zeros": whole + bytes(64),
            "no-magic": b"nope" + whole,
            "long-length": whole[:4] + b"\xff" * 4 + whole[8:],
        },
        "feed_messages": {
            "status": b'{"type":"get_status"}',
            "resume": b'{"type":"resume","after":12,"epoch":"abcd"}',
            "action": b'{"type":"action","name":"retry","job_id":"a1b2c3d4","token":"t","id":"1"}',
            "deep": b'{"type":' + b"[" * 1500,
            "huge": b'{"type":"resume","after":' + b"9" * 5000 + b"}",
        },
    }


def main() -> None:
    """Write what is not there, replace what has changed."""
    out = io.StringIO()
    for target, files in contents().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        out.write(f"{target}: {len(files)} files\n")
    sys.stdout.write(out.getvalue())


if __name__ == "__main__":
    main()
