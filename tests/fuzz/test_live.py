"""The live run, short: 5,000 frames against a real farm. The long one: scripts/fuzz.py --farm 1000000"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import live

FRAMES = 5_000
RSS_GROWTH = 20e6


def test_nonsense_hurts_neither_the_farm_nor_a_good_client(tmp_path: Path) -> None:
    farm = live.RealFarm(tmp_path / "farm").start()
    try:
        result = live.fuzz(farm, FRAMES)
    finally:
        farm.stop()
    print(result)
    assert result.alive, farm.said()[-3000:]
    assert result.tracebacks == 0, farm.said()[-3000:]
    assert result.rss_growth < RSS_GROWTH
    assert result.unsaved == 0
    assert result.foreign_files == 0
    assert {"protocol", "invalid", "unauthorized", "unknown_job", "fine"} <= set(result.codes)
    assert result.pings >= 10
