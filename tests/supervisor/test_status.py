"""What the supervisor adds to the status: folders, processes, formats."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from luna_farm import config
from luna_farm.core.limits import Limits, PoolLimits
from luna_farm.core.pools import NEAR
from luna_farm.core.retry import FailingFolder
from luna_farm.core.state import Farm
from luna_farm.supervisor import status


def made(farm: Farm, now: list[float]) -> dict[str, Any]:
    disks: Any = SimpleNamespace(space=lambda path, at, fresh_s: (fresh_s, 10))
    return status.Status(farm, disks, Path("/out"), lambda: now.pop() if len(now) > 1 else now[0], []).get()


def test_the_default_output_folder_is_always_there_and_what_fails_comes_first() -> None:
    farm = Farm(Limits(arena_bytes=4096), "luna-arena")
    assert [row["path"] for row in made(farm, [0.0])["folders"]] == ["/out"]
    farm.folders["/zzz"] = FailingFolder("/zzz", "full", 0.0)
    rows = made(farm, [3.0])["folders"]
    assert rows[0]["free_bytes"] < rows[1]["free_bytes"], "a failing one is looked at more often"
    assert [(row["path"], row["state"]) for row in rows] == [("/zzz", "failing"), ("/out", "ok")]


def test_there_is_one_uptime() -> None:
    found = made(Farm(Limits(arena_bytes=4096), "luna-arena"), [70.0, 10.0])
    assert found["uptime_s"] == found["supervisor"]["uptime_s"] == 60.0


def test_formats_that_only_other_machines_may_write_are_not_called_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status, "missing_formats", lambda: {"jxl": "pip install it"})
    assert made(Farm(Limits(arena_bytes=4096), "luna-arena"), [0.0])["missing_formats"] == {
        "jxl": "pip install it"
    }
    pools = (PoolLimits(NEAR, 1, 1), PoolLimits("ray", 1, 1))
    assert made(Farm(Limits(arena_bytes=4096, pools=pools), "luna-arena"), [0.0])["missing_formats"] == {}


def test_a_page_can_say_how_to_start_its_farm_again(tmp_path: Path) -> None:
    usual = config.load({"port": "19283"}, {}, None)
    assert status.start_command(usual) == "luna-farm start --detach"
    own = config.load({"state_dir": str(tmp_path / "my state"), "port": "7", "feed_port": "8"}, {}, None)
    place = tmp_path / "my state"
    assert status.start_command(own) == (
        f"luna-farm start --detach --state-dir '{place}' --port 7 --feed-port 8"
    )
