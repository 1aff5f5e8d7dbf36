"""Masks the secrets in the JSON documents of a job: prompt, workflow, generation parameters.

A document says more than a text: what stands under the name of a secret is one, so is what is linked to such
an input, and what was found so is a secret wherever it stands again, such as in the nameless widget values of
the workflow. Numbers, switches and links between nodes are never touched.

Pure. This module must never keep a secret longer than its object lives.
"""

from __future__ import annotations

import re
from typing import Any

from luna_farm.core.secret_shapes import Shape, mask, shapes_in
from luna_farm.core.secrets import MASK, credential, is_secret, named, wordlike

SHORTEST_REPEATED = 8
"""A shorter secret would be found in innocent words; it is looked for in nodes of its own type only."""
PLACES = 8
"""Places that a report names."""
MAX_LINKS = 8
"""Links that are followed from the input of a secret to the node that holds its text."""
_NAME_KEYS = ("name", "key", "header", "field", "id", "k")
_VALUE_KEYS = ("value", "val", "v")
_ESCAPED = re.compile(r"\\u00[2-7]|\\/")


class Scrubber:
    """Masks the secrets of documents that belong together.

    `places` says where: `prompt.12.inputs.api_key`, at most PLACES of them; `count` how many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self.places: list[str] = []
        self._known: set[str] = set()
        self._of_type: set[tuple[str, str]] = set()
        self._repeated: re.Pattern[str] | None = None
        self._shapes: tuple[Shape, ...] | None = None

    def all(self, documents: dict[str, Any], texts: str = "") -> dict[str, Any]:
        """Return the JSON values with their secrets masked, by name. The given values stay as they are.

        texts: the documents as they were written, to see at a glance what they cannot hold; "" for not known.
        """
        self._shapes = None if not texts or _ESCAPED.search(texts) else shapes_in(texts)
        for document in documents.values():
            self.learn(document)
        return {name: self._clean(document, name) for name, document in documents.items()}

    def learn(self, document: Any) -> None:
        """Remember what stands under the names of secrets, or is linked to them, to find its copies."""
        nodes = document if isinstance(document, dict) else {}
        self._collect(document, "", nodes)
        # Longest first, or a secret that begins like another would leave the other's end.
        inside = sorted(
            (re.escape(text) for text in self._known if re.search(r"\d", text) or not wordlike(text)),
            key=len,
            reverse=True,
        )
        self._repeated = re.compile("|".join(inside)) if inside else None

    def text(self, text: str) -> str:
        """Return a text without secrets: by shape, and those of the documents that were learnt."""
        cleaned, _ = self._cleaned(text)
        return cleaned

    def _collect(self, value: Any, kind: str, nodes: dict[str, Any]) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("class_type"), str):
                kind = value["class_type"]
            label = _label(value)
            for key, inner in value.items():
                self._learn(label if label and key in _VALUE_KEYS else key, inner, kind, nodes)
                self._collect(inner, kind, nodes)
        elif isinstance(value, list):
            if _is_pair(value):
                self._learn(value[0], value[1], kind, nodes)
            for inner in value:
                self._collect(inner, kind, nodes)

    def _learn(self, name: str, value: Any, kind: str, nodes: dict[str, Any]) -> None:
        if isinstance(value, str):
            if is_secret(name, value):
                self._of_type.add((kind, value))
                if len(value) >= SHORTEST_REPEATED:
                    self._known.add(value)
        elif named(name) is not None and is_link(value):
            for _ in range(MAX_LINKS):
                node = nodes.get(value[0])
                inputs = node.get("inputs") if isinstance(node, dict) else None
                if not isinstance(inputs, dict):
                    return
                assert isinstance(node, dict), "it has inputs"
                for inner in inputs.values():
                    self._learn(name, inner, str(node.get("class_type")), {})
                value = next((inner for inner in inputs.values() if is_link(inner)), None)
                if value is None:
                    return
        elif isinstance(value, (list, dict)) and not is_link(value):
            for inner in value.values() if isinstance(value, dict) else value:
                self._learn(name, inner, kind, nodes)

    def _clean(self, value: Any, place: str, name: str = "", kind: str = "") -> Any:
        if isinstance(value, str):
            return self._clean_text(value, place, name, kind)
        if isinstance(value, list):
            if _is_pair(value):
                second = self._clean(value[1], f"{place}[1]", value[0], kind)
                return [self._clean(value[0], f"{place}[0]", "", kind), second]
            return [
                self._clean(inner, f"{place}[{at}]", "" if is_link(value) else name, kind)
                for at, inner in enumerate(value)
            ]
        if not isinstance(value, dict):
            return value
        kind = next((value[key] for key in ("class_type", "type") if isinstance(value.get(key), str)), kind)
        label = _label(value)
        cleaned = {}
        for key, inner in value.items():
            safe = self._clean_text(key, place, "", "")
            at = f"{place}.{safe}"
            if key == "widgets_values" and isinstance(inner, list):
                cleaned[safe] = self._clean_widgets(value.get("inputs"), inner, at, kind)
            else:
                under = label if label and key in _VALUE_KEYS else key if named(key) else name
                cleaned[safe] = self._clean(inner, at, under, kind)
        return cleaned

    def _clean_widgets(self, inputs: Any, values: list[Any], place: str, kind: str) -> list[Any]:
        """Clean the nameless widget values of a workflow node with the names that its `inputs` give them."""
        slots = [slot.get("widget") for slot in inputs or () if isinstance(slot, dict)]
        names = [str(widget.get("name")) for widget in slots if isinstance(widget, dict)]
        if len(names) != len(values):
            # A seed's "control after generate" has a value and no input, so places do not match: what passes
            # for one of the secrets of the node is one.
            secret = [name for name in names if named(name)]
            names = [
                next((name for name in secret if isinstance(value, str) and _could_be(name, value)), "")
                for value in values
            ]
        return [
            self._clean(value, f"{place}[{at}]", name, kind)
            for at, (value, name) in enumerate(zip(values, names, strict=True))
        ]

    def _clean_text(self, text: str, place: str, name: str, kind: str) -> str:
        if (name and is_secret(name, text)) or (kind, text) in self._of_type:
            cleaned, found = MASK, 1
        else:
            cleaned, found = self._cleaned(text)
        if found:
            self.count += 1
            if len(self.places) < PLACES:
                self.places.append(place)
        return cleaned

    def _cleaned(self, text: str) -> tuple[str, int]:
        if text in self._known:
            return MASK, 1
        text, found = mask(text, self._shapes)
        if self._repeated is not None:
            text, again = self._repeated.subn(MASK, text)
            found += again
        return text, found


def _is_pair(value: list[Any]) -> bool:
    """Whether a list is a name and a credential, as `["X-Api-Key", "..."]` among headers."""
    if len(value) != 2 or type(value[0]) is not str or type(value[1]) is not str:
        return False
    return is_secret(value[0], value[1]) and credential(value[1])


def _label(value: dict[str, Any]) -> str:
    """Return the name in {"name": "Authorization", "value": ...}, "" where there is none."""
    if "value" not in value and "val" not in value and "v" not in value:
        return ""
    return next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), "")


def _could_be(name: str, value: str) -> bool:
    return is_secret(name, value) and not re.search(r"\s", value)


def is_link(value: Any) -> bool:
    """Whether a list is ComfyUI's link to another node: its id and the number of the output."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )
