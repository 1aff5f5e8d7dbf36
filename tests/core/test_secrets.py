"""The table of secrets: names that hold them, shapes that are them, and what only looks like it."""

from __future__ import annotations

import random

import pytest
from credentials import FIELDS, INNOCENT, INNOCENT_FIELDS, credentials
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.secret_shapes import mask, shapes_in
from luna_farm.core.secrets import MASK, is_secret, wordlike

MADE = credentials(random.Random(1))


@pytest.mark.parametrize(("kind", "text", "secret"), MADE, ids=[kind for kind, _, _ in MADE])
def test_each_shape_is_found_and_only_the_secret_goes(kind, text, secret):
    masked, count = mask(text)
    assert secret not in masked
    assert count >= 1
    assert mask(text, shapes_in(text)) == (masked, count)
    assert mask(masked) == (masked, 0)


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_no_secret_is_not_changed(text):
    assert mask(text) == (text, 0)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ["9f86d081884c7d659a2feaa0c55ad015", "hunter2!xK3vQ9zL"])
def test_fields_of_secrets(field, value):
    assert is_secret(field, value)
    assert not is_secret(field, MASK)


@pytest.mark.parametrize(("field", "value"), INNOCENT_FIELDS.items())
def test_fields_of_settings(field, value):
    assert not is_secret(field, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bearer abcdefghijklmnop1234", f"Bearer {MASK}"),
        ("https://me:hunter22@example.org/x", f"https://{MASK}@example.org/x"),
        ("https://e.org/m?type=Model&token=0123456789abcdef", f"https://e.org/m?type=Model&token={MASK}"),
        ('{"api_key": "abc", "n": 1}', f'{{"api_key": "{MASK}", "n": 1}}'),
        ("password=letmein now", f"password={MASK} now"),
    ],
)
def test_what_stands_around_a_secret_stays(text, expected):
    assert mask(text) == (expected, 1)


@pytest.mark.parametrize(
    "text", ["key:" * 20_000, '"' * 50_000, "\\" * 50_000, "sk-" * 20_000, "a.b:" * 20_000, "://a:" * 9000]
)
def test_long_texts_take_no_time(text):
    assert isinstance(mask(text), tuple)  # a pattern that goes back and forth would take minutes


@given(st.text())
def test_whatever_a_text_holds_it_never_raises(text):
    masked, count = mask(text)
    assert (masked == text) == (count == 0)
    wordlike(text)
