"""What to look for in the catalogue. This module must stay free of SQLite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; what is left out filters nothing.

    `words`: see `words.parse`. `model`: a part of its name, any case. `since`, `until`: seconds since 1970.
    `job`: its id. `score`: conditions such as "variance<0.1,blank", see `conditions.py`. `similar`: a
    perceptual hash, 16 hexadecimal digits. `failed`: images that failed instead of saved ones.
    """

    words: str = ""
    model: str = ""
    seed: int | None = None
    since: float | None = None
    until: float | None = None
    job: str = ""
    score: str = ""
    similar: str = ""
    failed: bool = False
