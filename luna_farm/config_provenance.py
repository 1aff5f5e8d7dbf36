"""The words of provenance, and what a worker needs to sign: plain data, passed from the configuration to the
workers. This module must never hold key material, only where it lies."""

from __future__ import annotations

import json
from dataclasses import dataclass

from luna_farm.errors import InvalidRequest

PROVENANCES = ("off", "xmp", "c2pa")
SOURCE_TYPES = {"generated": "trainedAlgorithmicMedia", "composite": "compositeWithTrainedAlgorithmicMedia"}
"""What a request may say (`source_type`) -> IPTC's word: made by a model alone, or from other images too."""

AIGC_FIELDS = (
    *("Label", "ContentProducer", "ProduceID", "ReservedCode1"),
    *("ContentPropagator", "PropagateID", "ReservedCode2"),
)
AIGC_LIMIT = 150
"""Characters of one field, so that a packet stays below 2 KB with all of them in ASCII."""


@dataclass(frozen=True, slots=True)
class Signing:
    """How the files of a farm are finished.

    `certificate` is a PEM file with the chain, the owner's own first; `key` a PEM file, or `command` a
    program that reads the bytes to be signed and writes the signature; `timestamp_url` an RFC 3161 service,
    "" for none. Input images are read from `input_dirs` only. `watermark` names an entry point, "" for none.
    """

    certificate: str = ""
    key: str = ""
    command: str = ""
    timestamp_url: str = ""
    input_dirs: tuple[str, ...] = ()
    watermark: str = ""


UNSIGNED = Signing()


def aigc_fields(text: str) -> dict[str, str]:
    """Return the fields of a JSON text as a request or the configuration holds it ("" for none).

    Raises InvalidRequest for another field than AIGC_FIELDS, and for one that is no text of at most
    AIGC_LIMIT characters.
    """
    if not text.strip():
        return {}
    allowed = f"a JSON object of {', '.join(AIGC_FIELDS)}, texts of at most {AIGC_LIMIT} characters"
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest.of("aigc", text, allowed) from None
    if not isinstance(fields, dict):
        raise InvalidRequest.of("aigc", text, allowed)
    for name, value in fields.items():
        if name not in AIGC_FIELDS or not isinstance(value, str) or len(value) > AIGC_LIMIT:
            raise InvalidRequest.of("aigc", {name: value}, allowed)
        if not value.isprintable():
            raise InvalidRequest.of("aigc", {name: value}, "texts without control characters")
    return fields
