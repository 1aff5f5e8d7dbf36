"""`status`: what it shows, once and watched."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from luna_farm.cli import status as status_command
from luna_farm.cli.view import Trend, sparkline, status_view
from luna_farm.errors import FarmUnavailable


def shown(view, width=200):
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(view)
    return console.file.getvalue()


@pytest.fixture
def known(farm):
    return json.loads(json.dumps(farm.status()))


def test_once(farm, cli):
    code, out, _ = cli("status")
    assert code == 0
    assert "Luna Farm 0.1.0  up 62 min, jobs on 127.0.0.1:19283, dashboard http://127.0.0.1:19284/" in out
    worker = next(line for line in out.splitlines() if line.strip().startswith("101"))
    assert worker.split() == ["101", "busy", "97", "%", "25.0", "MB", "1", "9", "12", "s", "42", "3.2"]
    assert "2 jobs, 7 images, 21.0 MB" in out
    assert "21.0 MB used, 40.0 MB reserved and warm, at most 1.0 GB" in out
    assert "42 saved (9.0 MB), 1 discarded, 0 failed" in out
    assert "png: kernel" in out


def test_json_is_the_status_of_the_client(farm, cli):
    assert json.loads(cli("status", "--json")[1]) == farm.status()


def test_everything_fits_80_columns(known):
    assert max(map(len, shown(status_view(known, Trend()), 80).splitlines())) <= 80


def test_failing_folders_dead_letters_notes_and_draining_show(known):
    known["folders"] = [
        {"path": "/nas", "state": "failing", "error": "disk full", "since_s": 5, "free_bytes": 0}
    ]
    known["dead_letters"] = [
        {"job_id": f"{n:08x}", "path": f"/out/{n}.png", "error": "broken"} for n in range(7)
    ]
    known |= {"notes": ["a smaller arena"], "draining": True, "feed_port": None}
    text = shown(status_view(known))
    for part in (
        "failing for 5 s: disk full",
        "7 dead letters",
        "00000004",
        "and 2 more",
        "Note: a smaller arena",
    ):
        assert part in text
    assert "draining" in text
    assert "dashboard" not in text
    assert "00000005" not in text


def test_jobs_that_lack_images_show(known):
    why = "It was never handed over."
    row = {"job_id": "a1b2c3d4", "num_images": 40, "images": 15, "path": "/out/b.png", "error": why}
    known["incomplete_jobs"] = [row] * 7
    text = shown(status_view(known))
    assert "a1b2c3d4  15 of 40 images not saved, such as /out/b.png: It was never" in text
    assert "and 2 more" in text


def test_a_destination_that_fails_says_why_below_the_table(known):
    why = "s3://b does not accept the credentials. Check user and keys in [destinations.NAME]."
    known["upload_spool"] = {"used_bytes": 37_600}
    known["destinations"] = [
        {
            "destination": "store",
            "state": "failing",
            "since_s": 65,
            "error": why,
            "uploading": 1,
            "waiting": 2,
        },
        {"destination": "sftp://nas", "state": "ok", "uploading": 0, "waiting": 0},
    ]
    text = shown(status_view(known), 80)
    assert "37.6 kB encoded, on the way to destinations" in text
    assert re.search(r"store +1 of 3 +failing for 65 s", text)
    assert re.search(r"sftp://nas +0 of 0 +ok", text)
    assert why in " ".join(text.split())


def test_a_name_is_never_read_as_markup(known):
    known["folders"] = [{"path": "/[red]x[/red]", "state": "ok", "free_bytes": 1, "total_bytes": 2}]
    assert "/[red]x[/red]" in shown(status_view(known))


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([0, 0], "▁▁"), ([0, 1], "▁█"), ([1, 2, 4, 8], "▂▃▅█"), ([5], "█")],
)
def test_sparkline(values, line):
    assert sparkline(values) == line


def test_a_trend_counts_per_second_and_survives_a_restart_of_the_farm(known):
    trend = Trend()
    for now, saved in ((10.0, 100), (12.0, 110), (12.0, 110), (13.0, 0)):
        known["totals"]["images_saved"] = saved
        trend.add(known, now)
    assert list(trend.images_per_s) == [5.0, 0.0]
    assert trend.cpu_percent[0] == 98.0


def test_a_trend_keeps_a_minute(known):
    trend = Trend()
    for now in range(200):
        trend.add(known, float(now))
    assert len(trend.images_per_s) == 60


def test_watching_shows_each_status_and_looks_again_for_a_farm_that_is_away(farm):
    farm.statuses = [farm.status(), FarmUnavailable("No farm at x."), farm.status()]
    console = Console(file=io.StringIO(), width=100, height=50, force_terminal=True)
    status_command.watch(farm, iter([1.0, 2.0, 3.0]), as_json=False, console=console)
    text = console.file.getvalue()
    assert "No farm at x. Looking again" in text
    assert text.count("Luna Farm") >= 2
    assert "images/s" in text


def test_watching_as_json_is_a_line_a_tick(farm, capsys):
    status_command.watch(farm, iter([1.0, 2.0]), as_json=True, console=Console())
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["pid"] for line in lines] == [100, 100]


def test_ctrl_c_ends_watching_well(farm, cli, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(status_command, "watch", interrupted)
    assert cli("status", "--watch")[0] == 0


def test_ticks_come_once_per_interval_without_drifting(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    ticks = status_command._every(2.0)
    seen = []
    for work in (0.5, 0.5, 5.0, 0.5):
        seen.append(next(ticks))
        clock[0] += work
    seen.append(next(ticks))
    assert seen == pytest.approx([100.0, 102.0, 104.0, 109.0, 111.0])


def test_the_interval_has_a_range(cli):
    assert cli("status", "--watch", "--interval", "0")[0] == 2


def test_no_farm_is_code_3(no_farm, cli):
    code, out, err = cli("status", "--json")
    assert (code, out) == (3, "")
    assert err == "No farm at 127.0.0.1:1.\n"


def test_the_dashboard_of_a_farm_with_a_certificate_is_shown_by_its_scheme(farm, cli):
    farm.statuses = [{**farm.status(), "tls": True, "host": "::1"}]
    assert "jobs on [::1]:19283, dashboard https://[::1]:19284/" in cli("status")[1]
