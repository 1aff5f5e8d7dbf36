"""Words: how texts are cut for the index, and what people type into a search.

Writing without spaces (Chinese, Japanese, Thai) and emoji are indexed sign by sign and searched as phrases,
so that a part of a sentence is found. Everything else is words of letters and digits, without case and
accents. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

TOKENIZER = "unicode61 remove_diacritics 2 categories 'L* N* Co So'"
_SIGN = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2600-\u27bf\u3040-\u312f\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\uff66-\uff9d\U0001f000-\U0001faff\U00020000-\U0003134f]"
)
_TYPED = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')


@dataclass(frozen=True, slots=True)
class Words:
    """A search in FTS5's language: what must match, and what must not, "" for nothing. `impossible`:
    nothing that was typed can be found, such as punctuation alone."""

    match: str = ""
    without: str = ""
    impossible: bool = False


def indexed(text: str) -> str:
    """Return a text as the index takes it."""
    return text if text.isascii() else _SIGN.sub(r" \g<0> ", text)


def parse(typed: str) -> Words:
    """Read what a person typed. Raises nothing: every text is a search.

    All words must occur. `"two words"` is a phrase, `port*` the beginning of a word, `-word` must not occur.
    """
    wanted: list[str] = []
    unwanted: list[str] = []
    for minus, phrase, word in _TYPED.findall(typed):
        text = phrase or word
        begins = not phrase and word.endswith("*")
        if not any(_is_token(sign) for sign in text):
            continue
        quoted = '"' + indexed(text).replace('"', " ").replace("\0", " ") + '"' + ("*" if begins else "")
        (unwanted if minus else wanted).append(quoted)
    impossible = bool(typed.strip()) and not wanted and not unwanted
    return Words(" AND ".join(wanted), " OR ".join(unwanted), impossible)


def remarks(typed: str) -> list[str]:
    """Return a sentence on each part of a search that is not looked for as it was meant."""
    found: list[str] = []
    for minus, quoted, phrase, word in _MEANT.findall(typed):
        text, shown = phrase or word, minus + (quoted or word)
        if quoted and not (len(quoted) > 1 and quoted.endswith('"')):
            what = "all behind it is looked for as one phrase" if phrase.strip() else "nothing follows it"
            found.append(
                f"The quote in {shown} is not closed: {what}. Put another one where the phrase ends."
            )
        elif not any(_is_token(sign) for sign in text):
            found.append(f"{shown} holds no letter, digit or symbol, so it is not looked for.")
        elif word in ("AND", "OR", "NOT"):
            found.append(f"{word} is looked for as a word: all words must occur, and -word must not.")
        elif "*" in text.rstrip("*") or "*" in phrase:
            found.append(f"The star in {shown} means nothing there; it stands for the end of a word: port*.")
        elif option := _OPTION.match(word):
            found.append(
                f"{shown} is looked for as words; {_OPTIONS[option[1].lower()]} is how to ask for it."
            )
    return found


_MEANT = re.compile(r'(-?)(?:("([^"]*)"?)|(\S+))')
_OPTIONS = {
    "model": "--model NAME",
    "seed": "--seed N",
    "job": "--job JOB",
    "since": "--since TIME",
    "score": "--score CONDITION",
    "width": "--score 'width>2000'",
    "height": "--score 'height>2000'",
}
_OPTION = re.compile(rf"({'|'.join(_OPTIONS)})(?:[:=<>])", re.IGNORECASE)


def _is_token(sign: str) -> bool:
    return sign.isalnum() or unicodedata.category(sign) in ("So", "Co", "Lo")
