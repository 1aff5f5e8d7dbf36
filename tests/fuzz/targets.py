"""What is fuzzed: one function of bytes for each place where bytes of unauthenticated peers arrive.

A target returns for whatever it is given, or raises the one error that it documents; everything else,
and every AssertionError here, is a finding. Run by test_targets.py (corpus and hypothesis), and for longer by
scripts/fuzz.py (atheris). The PNG kernel has a fuzzer of its own: scripts/fuzz_png.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from luna_farm.core import filenames, frames, messages, schema
from luna_farm.errors import FarmError, InvalidRequest, ProtocolError
from luna_farm.feed import requests
from luna_farm.imaging import metadata
from luna_farm.storage.journal import Journal
from luna_farm.testing import readers

Target = Callable[[bytes], None]
LIMITS = {"max_images": 16, "max_pixels": 2**20, "arena_bytes": 2**24}
DEFAULTS = {"output_dir": "/out", "on_reject": "discard", "durable": False}
LONGEST_REFUSAL = 2000
CORPUS = Path(__file__).parent / "corpus"


def frame_decoder(data: bytes) -> None:
    """A stream, cut anywhere: messages or ProtocolError, and never more held than was allowed."""
    if not data:
        return
    cut, data = data[0] + 1, data[1:]
    buffer = frames.FrameBuffer(frames.HELLO_LIMIT, frames.HELLO_ITEMS)
    with contextlib.suppress(ProtocolError):
        for start in range(0, len(data), cut):
            buffer.feed(data[start : start + cut])
            while (message := buffer.next()) is not None:
                assert frames.decode(frames.encode(message)[4:]) == message or "nan" in repr(message)
            assert buffer.pending <= frames.HELLO_LIMIT + cut


def message_schema(data: bytes) -> None:
    """A decoded message, judged as every command judges it."""
    try:
        message = frames.decode(data, 64)
    except ProtocolError:
        return
    with contextlib.suppress(ProtocolError):
        assert len(schema.command(message)) <= schema.COMMAND_LIMIT
    try:
        submit = schema.submit(message, DEFAULTS, LIMITS)
    except InvalidRequest as refused:
        if len(str(refused)) > LONGEST_REFUSAL:
            raise AssertionError("a refusal repeats what it was given") from refused
    else:
        assert 0 < submit.num_images <= LIMITS["max_images"]
        assert all(0 < batch.image_bytes <= 2**24 * 4 for batch in submit.batches)
        assert sum(submit.want) <= LIMITS["arena_bytes"]
    with contextlib.suppress(InvalidRequest):
        assert all(part.lease and part.images for part in schema.parts(message, 16))
    for field in ("sizes", "want", "leases"):
        with contextlib.suppress(InvalidRequest):
            schema.sizes(message, field, 16, 2**62)


def token_language(data: bytes) -> None:
    """Names out of a foreign workflow: below the folder, whatever the tokens are."""
    parts = data.decode("utf-8", "surrogateescape").split("\x1f")
    save_path, filename, model, affix, prompt = (*parts, "", "", "", "", "")[:5]
    given = {"save_path": save_path, "filename": filename, "model_name": model, "prompt": prompt}
    given |= {"timestamp": "2026-01-02T03:04:05+00:00", "request_id": "fuzzfuzz", "images": []}
    image = {"affix": affix, "shape": [2, 8, 8, 3]}
    try:
        submit = schema.submit({**given, "images": [image]}, DEFAULTS, LIMITS)
        names = filenames.image_names(submit).relatives
    except InvalidRequest:
        return
    assert len(names) == 2
    for name in names:
        assert not name.startswith("/")
        assert len(f"/out/{name}".encode()) <= filenames.PATH_BYTES
        for part in name.split("/"):
            assert part == filenames.clean_part(part)
            assert part not in ("", ".", "..")
            assert len(part.encode()) <= 255
            assert "\0" not in part


def metadata_readers(data: bytes) -> None:
    """Foreign files: texts or ValueError."""
    for read in (
        readers.png_texts,
        readers.webp_texts,
        readers.avif_texts,
        readers.jpeg_exif,
        readers.exif_texts,
        readers.parameters,
    ):
        with contextlib.suppress(ValueError):
            read(data)


def metadata_writer(data: bytes) -> None:
    """JSON texts of a foreign workflow: what is to be written is pure, and holds no secret named as one."""
    parts = data.decode("utf-8", "surrogateescape").split("\x1f")
    prompt, extra, known, custom = (*parts, "", "", "", "")[:4]
    options = messages.SaveOptions(
        "/out", prompt=prompt, extra_pnginfo=extra, metadata=known, custom_metadata=custom
    )
    task = messages.ImageTask("fuzzfuzz", 0, "RAW", "png", 0, 1, "/out/a.png", "shm:x", 0, 8, 8, 3)
    embedded = metadata.embed(options, task)
    for item in (*embedded.graph, *embedded.fields, *embedded.generation):
        if item.is_json:
            assert item.text.isascii()
            json.loads(item.text, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def journal_reader(data: bytes) -> None:
    """Any file: whole records, the same again, and a journal that goes on. One of a newer format is left
    alone."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=folder) as home:
        path = os.path.join(home, "journal")
        with open(path, "wb") as file:
            file.write(data)
        try:
            journal, replay = Journal.open(path)
        except FarmError:
            with open(path, "rb") as file:
                assert file.read() == data, "what it refuses it does not touch"
            return
        assert 0 <= replay.cut_bytes <= len(data)
        journal.append({"r": "more"})
        journal.close()
        again, second = Journal.open(path)
        again.close()
        assert second.records[-1] == {"r": "more"}
        assert repr(second.records[:-1]) == repr(replay.records)


def feed_messages(data: bytes) -> None:
    """A text of a subscriber: a request or InvalidRequest, which never shows a token."""
    text = data.decode("utf-8", "replace")
    for message in (text, data):
        with contextlib.suppress(InvalidRequest):
            requests.parse(message)
    with contextlib.suppress(InvalidRequest):
        requests.sequence(text)


def every_error_is_ours(target: Target) -> Target:
    """Guard: a FarmError that a target does not expect is a finding, too, and says so."""

    def guarded(data: bytes) -> None:
        try:
            target(data)
        except FarmError as error:
            raise AssertionError(f"{type(error).__name__} came out: {error}") from error

    return guarded


TARGETS: dict[str, Target] = {
    target.__name__: every_error_is_ours(target)
    for target in (
        frame_decoder,
        message_schema,
        token_language,
        metadata_readers,
        metadata_writer,
        journal_reader,
        feed_messages,
    )
}


def corpus(name: str) -> list[Path]:
    """The files of a target's corpus."""
    return sorted((CORPUS / name).iterdir())
