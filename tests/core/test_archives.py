"""Archives: which shard an image goes to, when it is published, what a restart or a refusal makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from stage import Disk, Stage, batch, code

from luna_farm.core import archive_names, archives, events, instructions, recovery
from luna_farm.core.shards import Shard, ShardState
from luna_farm.errors import InvalidRequest

URL = "s3://bucket/sets"
SHARED = {"archive": "tar", "shard_images": 2}


def stage(**changes: Any) -> Stage:
    made = Stage(**{"max_jobs": 40, "kept_reports": 40, **changes})
    made.workers()
    return made


def spooled(at: Stage, size: int = 10, **result: Any) -> None:
    """The image dispatched first is encoded, and lies in the spool."""
    task = at.dispatched[0].task
    target = {"spool": f"/spool/{task.job_id}-{task.index}", "root": task.root, "name": task.member}
    at.finish(**{"uploads": (target,), "spool_bytes": size, "bytes": size, **result})


def add(at: Stage, **given: Any) -> None:
    """The archiver has added the member that was ordered first, or answers as given."""
    i = at.members.popleft()
    stored = {} if given else {"name": i.name, "bytes": i.bytes}
    at.happens(events.UploadFinished(i.job_id, i.index, i.number, **{**stored, **given}))


def publish(at: Stage, **given: Any) -> None:
    """The archiver has published the shard that was ordered first, or answers as given."""
    i = at.publishing.popleft()
    stored = {} if given else {"path": i.shard.path}
    at.happens(events.ShardPublished(i.shard.shard_id, **{**stored, **given}))


def send(at: Stage, **given: Any) -> None:
    """The destination has confirmed the archive that was sent first, or answers as given."""
    i = at.uploads.popleft()
    stored = {} if given else {"name": i.name, "bytes": i.bytes}
    at.happens(events.UploadFinished(i.job_id, i.index, i.number, **{**stored, **given}))


def image(at: Stage, job_id: str, index: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = at.farm.jobs[job_id].report()["images"][index]
    return report


def test_the_archive_of_a_job_is_published_after_its_last_image() -> None:
    at = stage()
    receipt = at.answer(
        at.submit("job-0001", batch(affix="A"), batch(affix="B"), archive="zip", save_path="d")
    )
    assert receipt["paths"] == ["/out/d/a_00001.zip"] * 2
    spooled(at)
    assert [r["r"] for r in at.journal[-2:]] == ["shard", "image"], "the journal knows the shard first"
    assert at.farm.slots.used_bytes > 0
    add(at)
    assert at.states("job-0001") == ["uploading", "running"]
    assert image(at, "job-0001")["outputs"][0]["state"] == "packed"
    assert not at.publishing
    assert at.removed == ["/spool/job-0001-0"], "it lies in the shard"
    spooled(at)
    add(at)
    (order,) = at.publishing
    assert (order.shard.path, order.shard.root, order.members, order.bytes) == (
        "/out/d/a_00001.zip",
        "/out",
        2,
        20,
    )
    assert not at.told("save_job_done")
    publish(at)
    assert at.states("job-0001") == ["saved", "saved"]
    assert (image(at, "job-0001", 1)["path"], image(at, "job-0001", 1)["member"]) == (
        "/out/d/a_00001.zip",
        "a_B.png",
    )
    assert at.told("save_job_done")
    assert at.farm.spool_used_bytes == 0
    assert (at.farm.shards, at.farm.open_shards, at.farm.taken) == ({}, {}, set())
    assert recovery.read(at.journal).shards == {}


def test_each_job_has_an_archive_of_its_own_and_the_numbers_go_on() -> None:
    at = stage()
    paths = [at.answer(at.submit(f"job-000{n}", archive="tar"))["paths"][0] for n in range(3)]
    assert paths == [f"/out/a_0000{n}.tar" for n in (1, 2, 3)]
    assert at.numbers == 1, "the folder was asked once"


def test_images_that_never_come_do_not_hold_up_the_archive() -> None:
    at = stage()
    at.submit("job-0001", batch(affix="A"), batch(affix="B"), batch(affix="C"), archive="tar")
    spooled(at)
    add(at)
    at.finish(state="failed", code="encode", error="no")
    assert not at.publishing
    at.finish(state="dropped", path="")
    publish(at)
    assert at.states("job-0001") == ["saved", "failed", "dropped"]
    at.ask("retry", "job-0001")
    spooled(at)
    add(at)
    publish(at, path="/out/a_00002.tar")
    assert image(at, "job-0001", 1)["path"] == "/out/a_00002.tar"
    assert image(at, "job-0001", 0)["path"] == "/out/a_00001.tar"


def test_a_job_that_its_client_goes_on_with_keeps_its_archive_open() -> None:
    at = stage()
    reply = at.open("job-0001", batch(affix="A"), batch(affix="B"), request_id="request-1", archive="tar")
    lease = at.lease(3072)["leases"][0]
    at.seal(reply, (lease["lease"], 1))
    at.happens(events.ClientGone(7, may_write=False))
    assert at.states("job-0001") == ["queued", "missing"] or at.states("job-0001") == ["running", "missing"]
    at.submit("job-0002", batch(affix="A"), batch(affix="B"), request_id="request-1", archive="tar")
    spooled(at)
    add(at)
    spooled(at)
    add(at)
    publish(at)
    assert at.states("job-0001") == ["saved", "saved"]
    assert {found["path"] for found in at.farm.jobs["job-0001"].report()["images"]} == {"/out/a_00001.tar"}


def test_an_open_shard_takes_the_images_of_many_jobs() -> None:
    at = stage()
    for n in range(5):
        receipt = at.answer(at.submit(f"job-000{n}", **SHARED))
        spooled(at)
        add(at)
        assert at.states(f"job-000{n}") == ["saved"], "it is in the shard, on the disk"
        assert image(at, f"job-000{n}")["path"] == receipt["paths"][0] == f"/out/a_0000{n // 2 + 1}.tar"
    assert [i.shard.path for i in at.publishing] == ["/out/a_00001.tar", "/out/a_00002.tar"]
    publish(at)
    publish(at)
    assert [row["members"] for row in at.status()["archives"]] == [1]
    at.tick(archives.IDLE_S + 1)
    publish(at)
    assert at.farm.shards == {}


def test_images_on_their_way_count_for_the_bounds_of_a_shard() -> None:
    at = stage()
    at.submit("job-0001", batch(batch=3), **SHARED)
    for _ in range(3):
        spooled(at)
    assert [i.shard.path[-5] for i in at.members] == ["1", "1", "2"]
    by_size = stage()
    by_size.submit("job-0001", batch(batch=4), archive="tar", shard_bytes=25)
    for size in (100, 10, 10, 10):
        spooled(by_size, size)
    assert [i.shard.path[-5] for i in by_size.members] == ["1", "2", "2", "3"]
    for _ in range(4):
        add(by_size)
    assert [i.members for i in by_size.publishing] == [1, 2], "the first is larger than the bound alone"
    full = stage()
    full.submit("job-0001", archive="tar", shard_bytes=10)
    spooled(full)
    add(full)
    assert full.publishing, "nothing more fits"


def test_rejected_images_go_to_archives_that_readers_of_the_others_do_not_see() -> None:
    at = stage()
    at.submit("job-0001", batch(affix="A"), batch(affix="B"), archive="tar", save_path="d")
    spooled(at, state="discarded")
    spooled(at)
    assert [i.shard.path for i in at.members] == ["/out/d/_discarded/a_00001.tar", "/out/d/a_00001.tar"]
    add(at)
    add(at)
    publish(at)
    publish(at)
    assert at.states("job-0001") == ["discarded", "saved"]
    at.submit("job-0002", batch(affix="A"), batch(affix="B"), save_path="d", **SHARED)
    spooled(at, state="discarded")
    spooled(at)
    assert [i.shard.path for i in at.members] == ["/out/d/_discarded/a_00002.tar", "/out/d/a_00002.tar"]


def test_another_program_that_takes_the_name_costs_the_next_number_everywhere() -> None:
    at = stage()
    at.submit("job-0001", archive="tar", shard_idle_s=5)
    spooled(at)
    add(at)
    at.submit("job-0002", archive="tar")
    at.tick(6)
    publish(at, path="/out/a_00007.tar")
    found = image(at, "job-0001")
    assert found["path"] == found["outputs"][0]["path"] == "/out/a_00007.tar"
    assert "next free name" in found["warnings"][0]


def test_a_folder_that_refuses_is_tried_again() -> None:
    at = stage()
    at.submit("job-0001", archive="tar")
    spooled(at)
    add(at, error="No space left", decision="hold")
    assert at.told("destination_failing")[0]["destination"] == "archives in /out"
    while not at.members:
        at.tick(1)
    assert at.members[0].again
    add(at)
    assert at.told("destination_recovered")
    publish(at, error="No space left", decision="hold")
    assert at.status()["archives"][0]["error"] == "No space left"
    at.farm.draining = True
    assert at.farm.drained, "a stop does not wait for it"
    publish_tries = 0
    while not at.publishing:
        at.tick(0.25)
        publish_tries += 1
    assert publish_tries >= 2
    publish(at, error="No space left", decision="hold")
    assert len(at.told("destination_failing")) == 2, "told once for the shard"
    while not at.publishing:
        at.tick(1)
    publish(at)
    assert at.states("job-0001") == ["saved"]


def test_a_member_that_can_never_be_added_fails_alone() -> None:
    at = stage()
    at.submit("job-0001", batch(affix="A"), batch(affix="B"), archive="tar")
    spooled(at)
    spooled(at)
    add(at, error="damaged", decision="fail")
    add(at)
    publish(at)
    assert at.states("job-0001") == ["failed", "saved"]
    at.ask("retry", "job-0001")
    add(at)
    publish(at)
    assert at.states("job-0001") == ["saved", "saved"]


def test_an_archive_without_members_is_nothing() -> None:
    at = stage()
    at.submit("job-0001", archive="tar")
    spooled(at)
    add(at, error="damaged", decision="fail")
    assert at.publishing[0].members == 0
    publish(at, bytes=0)
    assert at.states("job-0001") == ["failed"]
    assert at.farm.shards == {}


def test_an_uploader_that_ends_costs_nothing() -> None:
    at = stage()
    at.submit("job-0001", archive="tar")
    spooled(at)
    add(at, decision="interrupted")
    assert at.members[0].again
    add(at)
    publish(at, decision="interrupted")
    publish(at)
    assert at.states("job-0001") == ["saved"]


def test_a_shard_whose_file_is_gone_costs_the_images_in_it() -> None:
    for root in ("/out", URL):
        at = stage()
        at.submit("job-0001", archive="tar", output_dir=root)
        spooled(at)
        add(at)
        publish(at, error="gone", decision="fail")
        assert at.states("job-0001") == ["lost"]
        assert at.told("job_lost")[0]["error"] == at.told("archive_lost")[0]["error"] == "gone"
        assert (at.farm.shards, at.farm.spool_used_bytes) == ({}, 0)


def test_a_stop_publishes_open_shards_first() -> None:
    at = stage()
    at.submit("job-0001", **SHARED)
    spooled(at)
    add(at)
    at.happens(events.DrainRequested())
    assert at.publishing
    assert not at.farm.drained
    publish(at)
    assert at.farm.drained


def test_an_archive_for_a_destination_is_saved_once_that_has_it() -> None:
    at = stage()
    receipt = at.answer(at.submit("job-0001", output_dir=URL, save_path="d", **SHARED))
    assert receipt["paths"] == [f"{URL}/d/a_00001.tar"]
    at.submit("job-0002", output_dir=URL, save_path="d", **SHARED)
    for _ in range(2):
        spooled(at)
        add(at)
    assert at.farm.spool_used_bytes == 20, "the shard is in the state folder"
    assert at.states("job-0001") == ["uploading"]
    publish(at, spool="/spool/set", bytes=30)
    (upload,) = at.uploads
    assert (upload.job_id, upload.index, upload.name) == (
        next(iter(at.farm.shards)),
        -1,
        "d/a_00001.tar",
    )
    assert upload.bytes == 30
    send(at, name="d/a_00004.tar", bytes=30)
    assert at.states("job-0001") + at.states("job-0002") == ["saved", "saved"]
    assert image(at, "job-0002")["path"] == f"{URL}/d/a_00004.tar"
    assert at.removed[-1] == "/spool/set"
    assert at.farm.spool_used_bytes == 0


def test_a_full_spool_completes_the_shards_that_fill_it() -> None:
    at = stage(spool_bytes=4000)
    at.submit("job-0001", output_dir=URL, archive="tar", shard_images=100)
    spooled(at, 5000)
    add(at)
    assert at.publishing, "nothing else would free the spool"
    refused = at.answer(at.submit("job-0002", archive="tar"))
    assert code(refused) == "busy"


def test_an_archive_that_a_destination_will_never_take_fails_with_its_images() -> None:
    at = stage()
    for n in (1, 2):
        at.submit(f"job-000{n}", output_dir=URL, **SHARED)
        spooled(at)
        add(at)
    publish(at, spool="/spool/set", bytes=30)
    at.submit("job-0003")
    at.finish(state="failed", code="encode", error="no")
    send(at, error="name too long", decision="fail")
    assert at.states("job-0001") + at.states("job-0002") == ["failed", "failed"]
    assert image(at, "job-0001")["outputs"][0]["error"] == "name too long"
    after = at.restarted()
    given_up = at.restarted()
    given_up.ask("dismiss", "job-0001")
    assert given_up.farm.shards
    given_up.ask("dismiss", "job-0002")
    assert (given_up.farm.shards, given_up.farm.spool_used_bytes) == ({}, 0)
    assert given_up.removed[-1] == "/spool/set"
    for now in (at, after):
        now.ask("retry", "job-0001")
        assert now.states("job-0002") == ["uploading"], "they are in one file"
        send(now)
        assert now.states("job-0001") + now.states("job-0002") == ["saved", "saved"]


def test_an_archive_for_a_wrong_destination_can_be_cancelled() -> None:
    at = stage()
    at.submit("job-0001", batch(batch=2), output_dir=URL, archive="tar")
    for _ in range(2):
        spooled(at)
        add(at)
    assert code(at.ask("cancel", "job-0001")) == "not_possible"
    publish(at, spool="/spool/set", bytes=30)
    send(at, error="no such bucket", decision="retry")
    assert code(at.ask("cancel", "job-0001", index=0)) == "not_possible", "the images are in one file"
    at.ask("cancel", "job-0001")
    assert at.states("job-0001") == ["cancelled"] * 2
    assert image(at, "job-0001")["outputs"][0]["error"] == "no such bucket"
    assert (at.farm.shards, at.farm.spool_used_bytes, at.removed[-1]) == ({}, 0, "/spool/set")
    assert at.restarted().farm.shards == {}


@pytest.mark.parametrize("end", [{"error": "reset", "decision": "retry"}, {"decision": "interrupted"}])
def test_an_archive_that_is_being_sent_is_tried_no_more_once_its_job_is_cancelled(
    end: dict[str, str],
) -> None:
    at = stage()
    whole(at, 2)
    at.ask("cancel", "job-0001")
    assert at.states("job-0001") == ["uploading"] * 2
    send(at)
    send(at, **end)
    send(at, **end)
    assert at.states("job-0001") == ["saved"] * 2
    assert [state for _, state in states_of(at, "job-0001", 1)] == ["saved", "failed", "failed"]
    assert (at.farm.shards, at.farm.spool_used_bytes, at.farm.open_jobs) == ({}, 0, {})


MIRRORED = {"archive": "tar", "mirrors": ("/mnt/nas", URL)}


def states_of(at: Stage, job_id: str, index: int = 0) -> list[tuple[str, str]]:
    return [(each["path"], each["state"]) for each in image(at, job_id, index)["outputs"]]


def whole(at: Stage, members: int, **fields: Any) -> None:
    """A job whose archive lies whole in the spool, on its way to a folder and two mirrors."""
    at.submit("job-0001", batch(batch=members), save_path="d", **MIRRORED, **fields)
    for _ in range(members):
        spooled(at)
        add(at)
    (order,) = at.publishing
    assert (order.shard.spooled, order.shard.roots) == (True, ("/out", "/mnt/nas", URL))
    publish(at, spool="/spool/set", bytes=30)
    assert [(i.root, i.name) for i in at.uploads] == [
        (root, "d/a_00001.tar") for root in ("/out", "/mnt/nas", URL)
    ]


def test_an_archive_goes_to_every_mirror_and_each_place_has_a_state() -> None:
    at = stage()
    whole(at, 2)
    send(at, name="d/a_00003.tar", bytes=30)
    assert at.states("job-0001") == ["uploading"] * 2
    after = at.restarted()
    after.workers()
    assert [(i.root, i.again) for i in after.uploads] == [("/mnt/nas", True), (URL, True)]
    for now in (at, after):
        send(now)
        places = [("/out/d/a_00003.tar", "saved"), ("/mnt/nas/d/a_00001.tar", "saved")]
        assert states_of(now, "job-0001", 1) == [*places, (f"{URL}/d/a_00001.tar", "packed")]
        send(now)
        assert now.states("job-0001") == ["saved"] * 2
        assert states_of(now, "job-0001", 1) == [*places, (f"{URL}/d/a_00001.tar", "saved")]
        assert image(now, "job-0001")["path"] == "/out/d/a_00003.tar"
        assert [each["member"] for each in image(now, "job-0001")["outputs"]] == ["a_RAW_0.png"] * 3
        assert (now.removed[-1], now.farm.spool_used_bytes, now.farm.shards) == ("/spool/set", 0, {})


def test_an_archive_and_its_copies_belong_on_the_disks_that_their_places_are_on() -> None:
    at = stage()
    at.disks = ("/mnt/nas", "/out")
    whole(at, 2)
    assert [upload.mount for upload in at.uploads] == ["/out", "/mnt/nas", ""]
    after = at.restarted()
    after.workers()
    assert [upload.mount for upload in after.uploads] == ["/out", "/mnt/nas", ""]


def test_an_archive_of_a_series_that_is_known_belongs_on_a_disk_too() -> None:
    at = stage()
    at.disks = ("/out/d",)
    for number in range(2):
        at.submit(f"job-000{number}", archive="tar", save_path="d", filename="a")
        assert at.dispatched[number].task.mount == "/out/d"


def test_a_mirror_that_will_never_take_an_archive_is_tried_again_alone_or_given_up() -> None:
    at = stage()
    whole(at, 2)
    send(at)
    send(at, error="forbidden", decision="fail")
    assert at.states("job-0001") == ["uploading"] * 2, "the last place has not answered"
    send(at)
    assert at.states("job-0001") == ["failed"] * 2
    assert [state for _, state in states_of(at, "job-0001")] == ["saved", "failed", "saved"]
    for now in (at.restarted(), at.restarted().restarted()):
        now.ask("retry", "job-0001")
        assert [i.root for i in now.uploads] == ["/mnt/nas"]
        send(now)
        assert now.states("job-0001") == ["saved"] * 2
        assert [state for _, state in states_of(now, "job-0001", 1)] == ["saved"] * 3
    at.ask("dismiss", "job-0001")
    assert at.states("job-0001") == ["saved"] * 2
    report = image(at, "job-0001")
    assert (report["path"], len(report["warnings"])) == ("/out/d/a_00001.tar", 1)
    assert "Its copy at /mnt/nas/d/a_00001.tar was given up: forbidden" in report["warnings"]
    assert (at.removed[-1], at.farm.spool_used_bytes, at.farm.shards) == ("/spool/set", 0, {})


def test_mirrors_of_an_archive_are_checked_as_those_of_images() -> None:
    at = stage()
    at.hold = {instructions.ReserveNames}
    at.submit("job-0001", **MIRRORED)
    assert at.held[0].mirrors == MIRRORED["mirrors"]


def test_an_open_shard_has_one_set_of_mirrors() -> None:
    at = stage()
    for n, mirrors in enumerate([("/a",), ("/a",), ("/b",), ()]):
        at.submit(f"job-000{n}", archive="tar", shard_images=9, mirrors=mirrors)
        spooled(at)
        add(at)
    assert [shard.members for shard in at.farm.shards.values()] == [2, 1, 1]
    assert [at.states(f"job-000{n}") for n in (0, 3)] == [["uploading"], ["saved"]]


def test_a_retry_of_two_images_of_one_archive_sends_it_once() -> None:
    at = stage()
    at.submit("job-0001", batch(batch=2), output_dir=URL, archive="tar")
    for _ in range(2):
        spooled(at)
        add(at)
    publish(at, spool="/spool/set", bytes=30)
    send(at, error="no", decision="fail")
    at.ask("retry", "job-0001")
    assert len(at.uploads) == 1
    send(at)
    assert at.states("job-0001") == ["saved", "saved"]


def test_a_restart_goes_on_with_every_shard() -> None:
    at = stage()
    at.submit("job-0001", batch(batch=3), archive="tar")  # one in the shard, one on its way, one not encoded
    spooled(at)
    add(at)
    spooled(at)
    at.submit("job-0002", filename="s", **SHARED)
    at.dispatched.rotate(-1)
    spooled(at)
    at.members.rotate(-1)
    add(at)
    at.submit("job-0003", output_dir=URL, archive="zip")
    at.dispatched.rotate(-1)
    spooled(at)
    at.members.rotate(-1)
    add(at)
    publish(at, spool="/spool/set", bytes=30)
    for again in (at.restarted(), at.restarted().restarted()):
        again.workers()
        assert again.farm.spool_used_bytes == 20
        (member,) = again.members
        assert (member.job_id, member.index, member.again) == ("job-0001", 1, True)
        add(again)
        spooled(again)
        add(again)
        assert [i.shard.path for i in again.publishing] == ["/out/a_00001.tar"]
        assert again.publishing[0].members == 3
        publish(again)
        assert again.states("job-0001") == ["saved"] * 3
        assert again.uploads[0].again
        send(again)
        assert again.states("job-0003") == ["saved"]
        assert again.answer(again.submit("job-0005", archive="tar"))["paths"] == ["/out/a_00002.tar"]
        again.dispatched.clear()
        again.submit("job-0004", filename="s", **SHARED)
        spooled(again)
        add(again)
        assert again.publishing[0].members == 2, "the open shard of before is full"
        publish(again)


def test_no_shard_gets_the_id_of_one_before_the_restart() -> None:
    at = stage()
    at.submit("job-0001", batch(affix="A"), archive="zip", save_path="d")
    spooled(at)
    add(at)
    publish(at)
    assert not at.farm.shards
    at.compact()
    assert at.restarted().farm.last_shard == at.farm.last_shard > 0


def test_a_restart_publishes_what_was_about_to_be_published() -> None:
    at = stage()
    at.submit("job-0001", archive="tar")
    spooled(at)
    add(at)
    after = at.restarted()
    after.workers()
    publish(after)
    assert after.states("job-0001") == ["saved"]


def test_a_restart_without_the_file_of_a_whole_archive_looks_for_its_shard() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL, archive="tar")
    spooled(at)
    add(at)
    publish(at, spool="/spool/set", bytes=30)
    after = at.restarted(Disk(gone=frozenset({"/spool/set"})))
    after.workers()
    publish(after, error="gone", decision="fail")
    assert after.states("job-0001") == ["lost"]


def test_records_that_a_power_cut_took_are_made_again_or_named() -> None:
    at = stage()
    at.submit("job-0001", batch(affix="A"), batch(affix="B"), archive="tar")
    spooled(at)
    add(at)
    spooled(at)
    at.journal = [r for r in at.journal if not r["r"].startswith("shard")]
    after = at.restarted()
    assert after.states("job-0001") == ["lost", "uploading"]
    assert "look whether" in after.told("job_lost")[0]["error"]
    after.workers()
    add(after)
    publish(after)
    assert after.states("job-0001") == ["lost", "saved"]


def test_images_that_were_not_encoded_are_encoded_after_a_restart() -> None:
    at = stage()
    at.submit("job-0001", archive="tar")
    after = at.restarted()
    after.workers()
    spooled(after)
    add(after)
    publish(after)
    assert after.states("job-0001") == ["saved"]
    assert after.farm.taken == set()


def test_the_archive_of_a_job_that_is_forgotten_is_published_all_the_same() -> None:
    at = stage()
    shard = Shard("x-0-s1", "k", "tar", "/out/x_00001.tar", "/out", "no-such-job", 0, 0, 60.0)
    at.farm.shards[shard.shard_id] = shard
    at.tick()
    publish(at)
    assert at.farm.shards == {}


def test_the_last_numbers_of_few_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_names, "MAX_SERIES", 2)
    at = stage()
    for n in range(4):
        at.submit(f"job-000{n}", archive="tar", filename=f"n{n}")
    assert list(at.farm.series) == ["/out/n2.tar", "/out/n3.tar"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"archive": "tar", "if_exists": "fail"}, "if_exists"),
        ({"shard_images": 3}, "archive"),
    ],
)
def test_what_an_archive_cannot_be_is_refused(fields: dict[str, Any], word: str) -> None:
    at = stage()
    refused = at.answer(at.submit("job-0001", **fields))
    assert (code(refused), word in refused["error"]) == (InvalidRequest.code, True)


def test_a_shard_changes_its_state_along_the_table() -> None:
    shard = Shard("x-0-s1", "k", "tar", "/out/x_00001.tar", "/out", "", 0, 0, 60.0)
    with pytest.raises(AssertionError, match="cannot go from open to sending"):
        shard.move(ShardState.SENDING)


def test_names_in_an_archive() -> None:
    at = stage()
    at.hold = {instructions.ReserveNames}
    for number, (fields, wanted) in enumerate(
        (
            ({"filename": "%counter%"}, "images"),
            ({"filename": "set_%affix%", "save_path": "a/b"}, "a/b/set"),
            ({"filename": "x"}, "x"),
        )
    ):
        at.open(f"job-000{number}", client=number + 1, archive="zip", **fields)
        assert at.held.pop().relatives == (f"{wanted}_%counter%.zip",)


def test_an_archive_of_a_job_that_is_larger_than_the_spool_goes_on_in_the_next_one() -> None:
    at = stage(spool_bytes=25)
    at.submit("job-0001", batch(batch=4), output_dir=URL, archive="tar")
    while at.dispatched or at.members or at.publishing or at.uploads:
        for waiting, go_on in (
            (at.dispatched, spooled),
            (at.members, add),
            (at.uploads, send),
        ):
            if waiting:
                go_on(at)
        if at.publishing:
            publish(at, path="", spool=f"/spool/{len(at.journal)}", bytes=at.publishing[0].bytes)
    assert at.states("job-0001") == ["saved"] * 4
    assert at.farm.spool_used_bytes == 0


def test_an_archive_that_may_have_its_name_takes_no_more_images_after_a_restart() -> None:
    at = stage()
    at.submit("job-0001", archive="tar", shard_idle_s=5)
    spooled(at)
    add(at)
    at.tick(6)
    assert at.publishing, "the farm dies before it is answered"
    after = at.restarted()
    after.workers()
    after.submit("job-0002", archive="tar", shard_idle_s=5)
    spooled(after)
    assert after.members[0].shard.shard_id != at.publishing[0].shard.shard_id


def test_an_archive_that_is_sent_again_is_remembered_for_all_of_its_jobs() -> None:
    at = stage()
    for n in (1, 2):
        at.submit(f"job-000{n}", output_dir=URL, **SHARED)
        spooled(at)
        add(at)
    publish(at, path="", spool="/spool/x", bytes=20)
    send(at, error="no", decision="fail")
    at.compact()
    at.ask("retry", "job-0001")
    after = at.restarted()
    assert after.states("job-0001") == after.states("job-0002") == ["uploading"]
