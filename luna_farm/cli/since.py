"""Times as people type them: 2h, 3d, 2026-05-04, 2026-05-04T12:00."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime

_UNITS = {"m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def since(text: str) -> float:
    """Return the seconds since 1970 of a time, or of so long ago. Raises ArgumentTypeError: wrong usage."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if ago and ago[2] in _UNITS:
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        allowed = "a time such as 30m, 2h, 3d, 1w, or 2026-05-04 or 2026-05-04T12:00"
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: {allowed}") from None
