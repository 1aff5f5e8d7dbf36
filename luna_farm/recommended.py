"""Commands that a message recommends, made to act on the farm that the message is about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_COMMANDS = (
    "start|stop|status|jobs?|retry|cancel|dismiss|pause|resume|open|dashboard|save|find|export"
    "|catalogue rebuild|logs|doctor|service (?:un)?install"
)
_NAMED = re.compile(rf"(?<=\bluna-farm )(?:{_COMMANDS})\b(?! --(?:state-dir|config|host|port)\b)")


def with_options(text: str, words: Sequence[str]) -> str:
    """Return a message in which every `luna-farm COMMAND` has the options `words` that name its farm: without
    them it would act on another one. One that has such options already stays as it is."""
    return _NAMED.sub(lambda found: f"{found[0]} {shlex.join(words)}", text) if words else text
