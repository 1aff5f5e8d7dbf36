"""What people type, and what is found by it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.catalogue import words
from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.catalogue.schema import DDL
from luna_farm.catalogue.search import Catalogue
from luna_farm.catalogue.store import Store

MakeRow = Callable[..., CatalogueRow]

PROMPT = (
    "portrait of a Café owner, long_hair, (golden hour:1.2), <lora:film_grain:0.8>, 猫耳の女の子 🔥 красота"
)


@pytest.mark.parametrize(
    "typed",
    [
        "portrait",
        "PORTRAIT cafe",
        "café",
        "long_hair",
        "long hair",
        '"golden hour"',
        "port*",
        "film_grain",
        "猫耳",
        "女の子",
        "🔥",
        "красота",
        "owner -dog",
        "-dog",
        '"golden hour',  # the closing quote is not typed yet
    ],
)
def test_is_found(store: Store, catalogue: Catalogue, make_row: MakeRow, typed: str) -> None:
    store.put([make_row(prompt=PROMPT), make_row(prompt="a dog in the rain")])
    assert [row.prompt for row in catalogue.search(typed)] == [PROMPT]


@pytest.mark.parametrize(
    "typed",
    ["port", "golden dog", '"hour golden"', "-portrait -rain", "犬", "owner -golden", "!!!", '"', "- *"],
)
def test_is_not_found(store: Store, catalogue: Catalogue, make_row: MakeRow, typed: str) -> None:
    store.put([make_row(prompt=PROMPT), make_row(prompt="a dog in the rain")])
    assert catalogue.search(typed) == []


def test_words_about_an_image_are_found_and_its_negative_prompt_is_not(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    row = make_row(
        path="/out/harbour_001.png",
        prompt="boats",
        negative="blurry",
        model="sd_xl_base",
        loras=("film:0.8",),
        affix="UPSCALED",
        custom='{"client":"Miller"}',
    )
    store.put([row])
    for typed in ("harbour", "sd_xl_base", "film", "upscaled", "miller", "boats miller"):
        assert len(catalogue.search(typed)) == 1, typed
    assert catalogue.search("blurry") == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_every_text_is_a_search(typed: str) -> None:
    parsed = words.parse(typed)
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(DDL)
        connection.execute("INSERT INTO words (rowid, prompt, about) VALUES (1, 'a', 'b')")
        for match in filter(None, (parsed.match, parsed.without)):
            connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (match,)).fetchall()
    finally:
        connection.close()


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(categories=("L", "N", "So")), min_size=1, max_size=12))
def test_a_word_is_found_by_itself(word: str) -> None:
    parsed = words.parse(word)
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(DDL)
        connection.execute(
            "INSERT INTO words (rowid, prompt, about) VALUES (1, ?, '')", (words.indexed(f"x {word} y"),)
        )
        assert not parsed.impossible
        found = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (parsed.match,)).fetchall()
        assert found == [(1,)]
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ('"golden hour', ['"golden hour is not closed: all behind it is looked for as one phrase']),
        ('night "golden hour -rain', ['"golden hour -rain is not closed']),
        ('-"golden hour', ['The quote in -"golden hour is not closed']),
        ('"', ['The quote in " is not closed: nothing follows it']),
        ('"a" "b" "', ['The quote in " is not closed']),
        ("!!!", ["!!! holds no letter, digit or symbol, so it is not looked for"]),
        ("harbour - *", ["- holds no letter", "* holds no letter"]),
        ('""', ['"" holds no letter']),
        ("a OR b", ["OR is looked for as a word"]),
        ("NOT rain AND sun", ["NOT is looked for", "AND is looked for"]),
        ("*port", ["The star in *port means nothing there"]),
        ("har*ur", ["The star in har*ur"]),
        ('"golden ho*"', ['The star in "golden ho*"']),
        (
            "model:flux Seed=42",
            ["model:flux is looked for as words; --model NAME", "Seed=42 is looked for as words"],
        ),
        ("width>2000", ["--score 'width>2000' is how to ask for it"]),
    ],
)
def test_what_is_not_looked_for_as_it_was_meant_is_said(typed: str, told: list[str]) -> None:
    found = words.remarks(typed)
    assert len(found) == len(told)
    assert all(part in sentence for part, sentence in zip(told, found, strict=True))


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "golden hour",
        '"golden hour"',
        'night "golden hour" port* -rain -"a b"',
        "model flux",
        "猫耳 🔥",
        "or and",
        "C++",
    ],
)
def test_nothing_is_said_of_a_search_that_is_understood(typed: str) -> None:
    assert words.remarks(typed) == []


@given(st.text(max_size=40))
def test_every_text_has_remarks_or_none(typed: str) -> None:
    assert all(sentence.endswith(".") for sentence in words.remarks(typed))
