"""`pause` and `resume` against a farm in memory."""

from __future__ import annotations

import json


def test_a_pause_says_what_waits_and_how_to_go_on(farm, cli):
    code, out, _ = cli("pause")
    assert code == 0
    assert out.startswith("The farm is paused with 7 images waiting and 1 being finished.")
    assert "luna-farm resume" in out
    assert cli("resume")[:2] == (0, "The farm saves, with 6 images waiting and 2 being saved.\n")


def test_a_pause_as_json(farm, cli):
    assert json.loads(cli("pause", "--json")[1]) == {"paused": True, "waiting": 7, "running": 1}


def test_no_farm_is_code_3(no_farm, cli):
    assert cli("pause")[0] == cli("resume")[0] == 3


def test_a_paused_farm_says_so_in_its_status(farm, cli):
    farm.statuses = [{**farm.status(), "paused": True}]
    assert "paused (luna-farm resume)" in cli("status")[1]
