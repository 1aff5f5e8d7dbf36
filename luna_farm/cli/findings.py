"""What `luna-farm doctor` has to say: findings, and the words that its checks share. It must never look at
anything."""

from __future__ import annotations

from dataclasses import dataclass

FINE, EXTRA, NOTE, PROBLEM = "fine", "extra", "note", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: `level` FINE, EXTRA (not installed, and few need it), NOTE (works, but) or
    PROBLEM; `advice` what to do, "" if nothing."""

    check: str
    level: str
    text: str
    advice: str = ""


def worst(findings: list[Finding]) -> str:
    """Return the worst level among findings; FINE without any."""
    levels = {finding.level for finding in findings}
    return next((level for level in (PROBLEM, NOTE) if level in levels), FINE)
