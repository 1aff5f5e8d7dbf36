"""The words of provenance, and what a worker needs to sign: plain data, passed from the configuration to the
workers. This module must never hold key material, only where it lies."""

from __future__ import annotations

from dataclasses import dataclass

PROVENANCES = ("off", "xmp", "c2pa")
SOURCE_TYPES = {"generated": "trainedAlgorithmicMedia", "composite": "compositeWithTrainedAlgorithmicMedia"}
"""What a request may say (`source_type`) -> IPTC's word: made by a model alone, or from other images too."""


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
