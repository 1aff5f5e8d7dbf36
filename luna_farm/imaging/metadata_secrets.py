"""Keeps passwords, keys and tokens out of pictures that people share.

Custom nodes put them into widgets, so they stand in ComfyUI's prompt and workflow. Three rules find them:

1. by name: a text under a key named like a secret (`api_key`, `hf_token`, `password`, `client_secret`,
   `authorization`, ...), and a widget of the workflow whose name is such a key (its values are a bare list
   there);
2. by shape: what only a credential looks like (`sk-...`, `hf_...`, `ghp_...`, `AKIA...`, JSON web tokens, a
   Bearer header, the password in `https://user:password@host`, `?token=...` in an address), wherever it
   stands;
3. by repetition: what was found by name is masked where it stands again, so that the copy in the workflow
   goes too: a text that is the same, and, if the secret has a digit, a text that contains it.

A name counts only where its last words say so: `max_tokens` and `token_normalization` are settings, not
secrets. Numbers, switches and links between nodes are never touched. This module must never keep a secret
longer than one call, and never log one.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
"""What stands in the place of a secret."""

# Compared with a key in lower case without separators: apiKey, API-KEY and api_key are one.
_ANYWHERE = (
    "apikey",
    "authtoken",
    "accesstoken",
    "password",
    "passwd",
    "passphrase",
    "clientsecret",
    "authorization",
)
_AT_THE_END = (
    "token",
    "secret",
    "secretkey",
    "privatekey",
    "accesskey",
    "credential",
    "credentials",
    "bearer",
    "pwd",
)

_SHAPES = re.compile(
    r"""
      \b(?:sk|pk|rk)[-_](?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{20,}  # OpenAI, Anthropic, Stripe and their like
    | \bhf_[A-Za-z0-9]{30,}                                     # Hugging Face
    | \bgh[opsru]_[A-Za-z0-9]{36,} | \bgithub_pat_\w{20,} | \bglpat-[\w-]{20,}
    | \br8_[A-Za-z0-9]{37}                                      # Replicate
    | \bcomfyui-[0-9a-f]{64}                                    # ComfyUI's API nodes
    | \bnvapi-[\w-]{40,} | \bxox[abprs]-[A-Za-z0-9-]{10,}
    | \bAKIA[0-9A-Z]{16}\b | \bAIza[\w-]{35}                    # AWS, Google
    | \beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*                     # JSON web token
    | (?<=\bBearer\ )[A-Za-z0-9._~+/=-]{16,}
    | (?<=://)[^/\s:@"]{1,200}:[^/\s:@"]{1,200}(?=@)            # user:password@host
    | (?<=[?&]token=)[^&\s"]{8,} | (?<=[?&]api_key=)[^&\s"]{8,}
    """,
    re.VERBOSE | re.ASCII,
)
# No shape without one of these: a quick look that spares nearly every text the long one.
_MARKS = (
    *(
        "sk-",
        "sk_",
        "pk-",
        "pk_",
        "rk-",
        "rk_",
        "hf_",
        "ghp_",
        "gho_",
        "ghs_",
        "ghr_",
        "ghu_",
        "github_pat_",
        "glpat-",
    ),
    *("r8_", "comfyui-", "nvapi-", "xox", "AKIA", "AIza", "eyJ", "Bearer ", "://", "token=", "api_key="),
)
_SHORTEST_REPEATED = 8  # a shorter text would be found in innocent words
_SEPARATORS = {code: None for code in range(128) if not chr(code).isalnum()}


def suspicious(text: str) -> bool:
    """Whether a JSON document may hold a secret: a quick look that errs on the side of yes."""
    joined = _joined(text)
    return (
        any(word in joined for word in (*_ANYWHERE, *_AT_THE_END))
        or any(mark in text for mark in _MARKS)
        or re.search(r"\\u00[2-7]|\\/", text) is not None  # plain letters and slashes written as escapes
    )


def is_secret_name(key: str) -> bool:
    """Whether a key is named like a secret, whatever case and separators it is written with."""
    joined = _joined(key)
    return joined.endswith(_AT_THE_END) or any(word in joined for word in _ANYWHERE)


def _joined(text: str) -> str:
    return text.lower().translate(_SEPARATORS)


class Scrubber:
    """Masks the secrets in documents that belong together. `count` says how many places it changed."""

    def __init__(self) -> None:
        self.count = 0
        self._known: set[str] = set()
        self._repeated: re.Pattern[str] | None = None
        self._names: dict[str, bool] = {}  # keys repeat, node after node

    def all(self, documents: list[Any]) -> list[Any]:
        """Return the JSON values with their secrets masked. The given values stay as they are."""
        for document in documents:
            self._collect(document)
        # Longest first, or a secret that begins like another would leave the other's end.
        inside = sorted(
            (re.escape(text) for text in self._known if re.search(r"\d", text)), key=len, reverse=True
        )
        self._repeated = re.compile("|".join(inside)) if inside else None
        cleaned = [self._clean(document) for document in documents]
        self._known.clear()
        self._repeated = None
        return cleaned

    def _is_secret(self, key: str) -> bool:
        if key not in self._names:
            self._names[key] = is_secret_name(key)
        return self._names[key]

    def _collect(self, value: Any, secret: bool = False) -> None:
        """Remember what stands under the name of a secret, to find its copies."""
        if isinstance(value, str):
            if secret and len(value) >= _SHORTEST_REPEATED:
                self._known.add(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                self._collect(inner, secret or self._is_secret(key))
        elif isinstance(value, list):
            for inner in value:
                self._collect(inner, secret and not _is_link(value))

    def _clean(self, value: Any, secret: bool = False) -> Any:
        if isinstance(value, str):
            return self._mask(value) if secret else self._clean_text(value)
        if isinstance(value, list):
            return [self._clean(inner, secret and not _is_link(value)) for inner in value]
        if isinstance(value, dict):
            return {
                key: self._clean_widgets(value.get("inputs"), inner)
                if key == "widgets_values" and isinstance(inner, list)
                else self._clean(inner, secret or self._is_secret(key))
                for key, inner in value.items()
            }
        return value

    def _clean_widgets(self, inputs: Any, values: list[Any]) -> list[Any]:
        """Clean the nameless widget values of a workflow node with the names that its `inputs` give them."""
        slots = inputs if isinstance(inputs, list) else []
        widgets = [
            slot["widget"]
            for slot in slots
            if isinstance(slot, dict) and isinstance(slot.get("widget"), dict)
        ]
        names = [widget.get("name") for widget in widgets]
        secret = [isinstance(name, str) and is_secret_name(name) for name in names]
        if not any(secret):
            return [self._clean(value) for value in values]
        if len(names) != len(values):
            # A seed's "control after generate" has a value and no input, so places do not match: mask what
            # could be meant, which is every text of one word.
            secret = [isinstance(value, str) and not re.search(r"\s", value) for value in values]
        return [self._clean(value, secret=hide) for hide, value in zip(secret, values, strict=True)]

    def _clean_text(self, text: str) -> str:
        if text in self._known:
            return self._mask(text)
        found = 0
        if any(mark in text for mark in _MARKS):
            text, found = _SHAPES.subn(MASK, text)
        if self._repeated is not None:
            text, again = self._repeated.subn(MASK, text)
            found += again
        self.count += found
        return text

    def _mask(self, value: str) -> str:
        if value in ("", MASK):
            return value
        self.count += 1
        return MASK


def _is_link(value: list[Any]) -> bool:
    """Whether a list is ComfyUI's link to another node: its id and the number of the output."""
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
