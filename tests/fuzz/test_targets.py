"""The fuzz targets in their short form: the corpus as it is, and what hypothesis makes of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS, corpus

EXAMPLES = 150


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    files = corpus(name)
    assert len(files) >= 3
    for file in files:
        TARGETS[name](file.read_bytes())


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A file of the corpus with some bytes replaced, put in, left out or repeated."""
    data = bytearray(draw(st.sampled_from(corpus(name))).read_bytes()[:4096])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(("replace", "insert", "delete", "repeat", "flip")))
        some = draw(st.binary(min_size=1, max_size=8))
        if what == "replace":
            data[at : at + len(some)] = some
        elif what == "insert":
            data[at:at] = some
        elif what == "delete":
            del data[at : at + len(some)]
        elif what == "repeat":
            data[at:at] = data[max(0, at - 8) : at] * some[0]
        elif at < len(data):
            data[at] ^= 1 << (some[0] % 8)
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_what_comes_of_the_corpus(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(mutated(name) | st.binary(max_size=300)))
