"""Checks of the marks that the configuration asks for, for `luna-farm doctor`: can files be signed here, and
is the watermark there? Without them every image would be kept as a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from luna_farm.cli.findings import FINE, PROBLEM, Finding
from luna_farm.config import Config
from luna_farm.errors import DiskError, EncodeError


def marks(config: Config) -> Iterator[Finding]:
    """Yield a finding for each kind of mark that is configured."""
    from luna_farm.imaging import c2pa, watermark

    signing = config.signing
    if signing.certificate or config.provenance == "c2pa":
        said = f"{signing.certificate} and its key can sign."
        yield _tried("C2PA key", said, lambda: c2pa.check(signing))
    if signing.watermark and config.engine != "ray":  # there it runs on other machines
        said = f"A package brings {signing.watermark}."
        install = (
            "Install the package that brings it for this Python, or correct `watermark` in the configuration."
        )
        yield _tried("watermark", said, lambda: watermark.check(signing.watermark), install)


def _tried(what: str, said: str, check: Callable[[], None], advice: str = "") -> Finding:
    try:
        check()
    except (EncodeError, DiskError) as error:
        return Finding(what, PROBLEM, str(error), advice)
    return Finding(what, FINE, said)
