"""A farm that died is made again from its journal, and nothing that was accepted is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from stage import CLIENT, Disk, Stage, batch

from luna_farm.core import events, instructions, recovery
from luna_farm.core.messages import ImageResult
from luna_farm.core.state import Farm


def busy_stage() -> Stage:
    """Jobs in every state: done, running, waiting, held, with a dead letter, durable."""
    stage = Stage(max_workers=1, max_jobs=20, kept_reports=20)
    stage.workers()
    stage.submit("job-done")
    stage.finish()
    stage.submit("job-bad")
    stage.finish(state="failed", code="encode", error="no")
    stage.submit("job-held", output_dir="/full")
    stage.finish(state="failed", code="disk", error="full")
    stage.submit("job-run", batch(), batch(batch=2))
    stage.finish()
    stage.submit("job-hard", durable=True)
    return stage


def history(farm: Farm) -> dict[str, Any]:
    """All that must survive of a farm: jobs, images, names, files in use."""
    resumed = {"running": "queued", "held": "queued", "burying": "queued"}
    return {
        "jobs": {
            job.job_id: [(i.task.path, resumed.get(i.state.value, i.state.value)) for i in job.images]
            for job in farm.jobs.values()
        },
        "requests": farm.requests,
        "open": set(farm.open_jobs),
        "taken": farm.taken,
    }


def test_a_restart_takes_all_jobs_up_again() -> None:
    before = busy_stage()
    after = before.restarted()
    assert history(after.farm) == history(before.farm)
    assert after.states("job-held") == ["queued"], "perhaps the disk is back"
    unfinished = [image.key for image in before.farm.unfinished()]
    assert sorted(image.key for image in after.farm.waiting) == sorted(unfinished)
    assert all(image.task.recovered for image in after.farm.waiting)
    after.workers()
    while after.dispatched:
        after.finish()
    assert after.farm.open_jobs == {}
    assert after.farm.taken == set()
    assert after.farm.segment_users == {"npy:/dead/job-bad-0.npy": 1}


def test_what_is_compacted_makes_the_same_farm() -> None:
    before = busy_stage()
    whole = before.restarted()
    before.compact()
    assert history(before.restarted().farm) == history(whole.farm)


def test_a_known_request_is_answered_after_a_restart() -> None:
    before = Stage()
    first = before.answer(before.submit("job-0001", request_id="request-1"))
    after = before.restarted()
    again = after.answer(after.submit("job-0002", request_id="request-1"))
    assert {**again, "leases": []} == {**first, "leases": [], "known": True}


def test_pixels_of_a_predecessor_are_read_where_they_are_and_forgotten_when_they_are_not_needed() -> None:
    before = Stage()
    before.submit("job-0001", batch(), batch())
    before.submit("job-hard", durable=True)
    recovered = recovery.read(before.journal)
    assert recovered.segments_in_use() == {"shm:arena", "file:/spool/job-hard-0"}
    after = before.restarted(max_workers=1)
    assert after.farm.segment_users == {"shm:arena": 2, "file:/spool/job-hard-0": 1}
    after.workers()
    assert {d.task.segment for d in after.dispatched} == {"shm:arena"}
    assert [i for i in after.finish() if isinstance(i, instructions.Forget)] == []
    assert instructions.Forget("shm:arena") in after.finish()
    assert instructions.Forget("file:/spool/job-hard-0") in after.finish()


def test_images_whose_pixels_are_gone_are_lost_by_name() -> None:
    before = Stage()
    before.workers()
    before.submit("job-0001", batch(), batch())
    before.finish()
    after = before.restarted(Disk(pixels=False))
    assert sorted(after.states("job-0001")) == ["lost", "saved"]
    (lost,) = after.told("job_lost")
    assert lost["path"] == "/out/a_RAW_00002.png"
    assert "in memory" in lost["error"]
    assert after.told("save_job_done")[0]["state"] == "lost"
    assert after.farm.open_jobs == {}
    assert after.farm.totals["images_failed"] == 1
    assert [type(row).__name__ for row in after.catalogue] == ["CatalogueFailed"], "`find --failed` shows it"
    assert [row["state"] for row in recovery.catalogue_rows(after.farm.jobs.values())] == ["saved", "failed"]
    (row,) = after.status()["incomplete_jobs"]
    assert (row["images"], row["path"]) == (1, "/out/a_RAW_00002.png")
    refused = after.ask("retry", "job-0001")
    assert refused is not None
    assert "1 image lost" in refused["error"]
    again = after.restarted(Disk(pixels=False))
    assert again.published == [], "that was told before"
    again.ask("dismiss", "job-0001")
    assert sorted(again.states("job-0001")) == ["cancelled", "saved"]
    assert again.status()["incomplete_jobs"] == []


def test_of_a_lost_image_it_is_told_that_a_file_of_its_name_is_there() -> None:
    before = Stage()
    before.submit("job-0001", batch(), batch())
    after = before.restarted(Disk(pixels=False, files=frozenset({"/out/a_RAW_00002.png"})))
    assert ["look at it" in lost["error"] for lost in after.told("job_lost")] == [False, True]


def test_a_file_that_was_published_before_its_pixels_were_lost_is_recognised() -> None:
    before = Stage()
    before.submit("job-0001", batch(), batch())
    made = ImageResult("saved", path="/out/a_RAW_00001.png", bytes=10)
    after = before.restarted(Disk(pixels=False, made={("job-0001", 0): made}))
    assert after.states("job-0001") == ["saved", "lost"]
    told = [(r["index"], r["state"]) for r in after.journal if r["r"] == "image"]
    assert told == [(0, "saved"), (1, "lost")]


def test_old_workers_are_known_by_pid_and_time_of_birth() -> None:
    before = Stage(min_workers=2)
    before.workers()
    assert recovery.read(before.journal).workers == [(1001, 51.0), (1002, 52.0)]
    before.happens(events.WorkerGone(1, "killed"))
    before.compact()
    assert recovery.read(before.journal).workers == [(1002, 52.0)], "those that were collected need no fence"


def test_records_of_a_newer_farm_and_of_jobs_that_were_dropped_are_passed_over() -> None:
    stage = Stage()
    stage.submit("job-0001")
    record = stage.journal[0]
    image = {"r": "image", "job_id": "job-9999", "index": 0, **record["images"][0]}
    recovered = recovery.read([{"r": "of the future"}, {}, image, record])
    assert list(recovered.jobs) == ["job-0001"]


@pytest.mark.parametrize("state", ["running", "held", "burying"])
def test_what_was_under_way_waits_again(state: str) -> None:
    stage = Stage()
    stage.submit("job-0001")
    stage.journal[0]["images"][0]["state"] = state
    assert stage.restarted().states("job-0001") == ["queued"]


def test_finished_reports_stay_bounded_and_are_not_told_again() -> None:
    before = Stage(kept_reports=3)
    before.workers()
    for n in range(3):
        before.submit(f"job-{n}")
        before.finish()
    after = before.restarted(kept_reports=2)
    assert list(after.farm.jobs) == ["job-1", "job-2"]
    assert after.published == []


def test_warnings_and_results_come_back() -> None:
    before = Stage()
    before.workers()
    before.submit("job-0001", filename="%nothing%")
    before.finish(warnings=("a warning",), score=0.5, ms={"encode": 1.0})
    was = before.farm.jobs["job-0001"].report()
    assert before.restarted().farm.jobs["job-0001"].report() == was
    assert was["warnings"]


def test_a_cancelled_image_that_was_begun_leaves_no_temporary_file() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    after = stage.restarted()
    done = after.happens(events.JobRequested(CLIENT, after.reply(), "cancel", "job-0001"))
    names = (".luna-job-0001-0.tmp", ".luna-job-0001-0-json.tmp")
    temps = tuple(folder + name for name in names for folder in ("/out/", "/out/_discarded/"))
    assert instructions.RemoveTemps(temps, "/out") in done


def test_finished_jobs_are_no_part_of_the_journal_and_known_by_their_reports() -> None:
    before = Stage()
    before.workers()
    before.submit("job-0001")
    before.finish()
    assert [record["r"] for record in recovery.snapshot(before.farm)] == ["worker"]
    before.compact()
    after = before.restarted()
    assert after.states("job-0001") == ["saved"]
    assert after.journal == [], "it holds open jobs only"
    assert len(after.reports) == 1, "a report that is kept is not kept twice"


def test_a_report_that_the_end_came_before_is_kept_by_the_next_start() -> None:
    before = Stage()
    before.workers()
    before.submit("job-0001")
    before.finish()
    before.reports.clear()
    after = before.restarted()
    assert after.published == []
    assert [report["job_id"] for report in after.reports] == ["job-0001"]


@pytest.mark.parametrize(
    "record",
    [
        {"r": "image", "job_id": "job-0001", "index": 0, "state": "levitating"},
        {"r": "image", "job_id": "job-0001", "index": 7, "state": "saved"},
        {"r": "image", "job_id": "job-0001"},
        {"r": "job", "job_id": "job-0002", "images": []},
        {"r": "job", "job_id": "job-0002", "images": 5},
        {"r": "worker", "pid": 5},
    ],
    ids=lambda record: str(record)[:40],
)
def test_a_record_that_makes_no_sense_is_named_and_costs_no_other_job(record: dict[str, Any]) -> None:
    before = Stage()
    before.submit("job-0001")
    before.journal.append(record)
    before.submit("job-0003")
    recovered = recovery.read(before.journal)
    assert recovered.unread == [record.get("job_id") or "worker"]
    assert {"job-0001", "job-0003"} <= set(recovered.jobs)


JUNK = (None, "\0/../..", -1, 1.5, b"x", [1], {"a": 1})


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*at, key)
        yield from places(one, (*at, key))


def test_whatever_stands_in_a_field_of_a_record_the_farm_starts_and_keeps_the_other_jobs() -> None:
    """Records with a valid checksum, of a version that keeps something else in a field of that name."""
    before = busy_stage()
    before.submit("job-far", output_dir="s3://bucket/a")
    before.finish(uploads=({"spool": "/spool/1", "root": "s3://bucket/a", "name": "a.png"},))
    pristine = json.loads(json.dumps(before.journal))
    assert {"job", "image", "worker"} <= {record["r"] for record in pristine}
    everything = recovery.read(pristine).jobs.keys()
    kinds = {(record["r"], "uploads" in record): at for at, record in enumerate(pristine)}
    for number in kinds.values():
        record = pristine[number]
        for place in places(record):
            for junk in JUNK:
                records = json.loads(json.dumps(pristine))
                inner = records[number]
                for key in place[:-1]:
                    inner = inner[key]
                inner[place[-1]] = junk
                recovered = recovery.read(records)
                kept = everything - {record.get("job_id")}
                assert kept <= set(recovered.jobs), (place, junk)
                recovery.restore(Stage().farm, recovered, Disk(), 0.0)


def test_a_record_of_several_jobs_that_makes_no_sense_in_one_costs_no_other() -> None:
    before = Stage()
    before.submit("job-0001")
    before.submit("job-0002")
    one, other = (record for record in before.journal if record["r"] == "job")
    recovered = recovery.read([{"r": "jobs", "jobs": [{**one, "options": 5}, 7, other]}])
    assert (list(recovered.jobs), recovered.unread) == ([other["job_id"]], [one["job_id"], "job"])


def test_a_report_that_makes_no_sense_is_passed_over() -> None:
    assert recovery.read([], [{"job_id": "job-0001"}, {}]).reports == {}
