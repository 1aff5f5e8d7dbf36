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


def _is_token(sign: str) -> bool:
    return sign.isalnum() or unicodedata.category(sign) in ("So", "Co", "Lo")
