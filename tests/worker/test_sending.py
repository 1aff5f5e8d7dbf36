"""Files that workers elsewhere send by themselves: what is offered to them, and what comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luna_farm.config_destinations import Destination, without_secrets
from luna_farm.config_provenance import UNSIGNED
from luna_farm.config_ray import RayCluster
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.imaging import metadata
from luna_farm.storage import sinks
from luna_farm.storage.sinks.refusals import refusal
from luna_farm.storage.sinks.sink import Stored, Upload
from luna_farm.worker import sending
from luna_farm.worker.actor import Encoder
from luna_farm.worker.made import Made
from luna_farm.worker.sending import FIRST_PAUSE_S, LAST_PAUSE_S, Offer, Offers, Refused

URL = "s3://bucket/shots"
SECRETS = {"access_key_id": "AKIA", "secret_access_key": "hidden", "session_token": "hidden too"}
STORE = Destination("store", "s3://bucket", {"endpoint": "http://127.0.0.1:1", "region": "x", **SECRETS})
CLUSTER = RayCluster(destinations=without_secrets([STORE]), send_s=5.0)
PIXELS = np.zeros((8, 8, 3), np.uint8)


def task(root: str = URL, **given: Any) -> ImageTask:
    made = ImageTask("job", 0, "A", "png", 0, 1, f"{root}/day/a_A.png", "shm:none", 0, 8, 8, 3, root=root)
    return replace(made, **given)


class Clock:
    """A time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Bucket:
    """A sink that keeps what it gets, or refuses."""

    thread_safe = True

    def __init__(self, *refused: str) -> None:
        self.kept: dict[str, tuple[Upload, bytes]] = {}
        self.refused = refused
        self.again: list[bool] = []

    def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
        if len(self.kept) < len(self.refused) and self.refused[len(self.kept)]:
            raise refusal("s3://bucket", self.refused[len(self.kept)])
        self.kept[key] = upload, bytes(body)
        self.again.append(again)
        return Stored(key, upload.bytes)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket()
    monkeypatch.setattr(sending, "open_sink", lambda location, options: made)
    return made


def encoded(offer: Offer | None, **given: Any) -> Any:
    options = SaveOptions(output_dir=URL)
    one = task(**given)
    return Encoder(UNSIGNED).encode(PIXELS, one, options, metadata.embed(options, one), False, offer)


def offered(**given: Any) -> Offer:
    offer = Offers(CLUSTER).of("node", task(**given), SaveOptions(output_dir=URL))
    assert offer is not None
    return offer


def test_secrets_of_the_farm_are_not_offered() -> None:
    """Endpoint and region are."""
    offer = offered()
    assert (offer.place, offer.location.prefix, offer.send_s) == ("store", "shots", 5.0)
    assert offer.destination.options == {"endpoint": "http://127.0.0.1:1", "region": "x"}


@pytest.mark.parametrize(
    "given",
    [
        {"root": "/out"},
        {"root": "sftp://host/x"},
        {"archive": "tar"},
        {"mirrors": ("/mnt",)},
        {"provenance": "c2pa"},
        {"recovered": True},
        {"root": "s3://bucket/../x"},
    ],
)
def test_only_what_goes_to_one_object_store_is_offered(given: dict[str, Any]) -> None:
    """File servers keep no tokens; folders, archives and keys are on the farm's machine, and so is what an
    earlier attempt may have spooled."""
    of_task = {name: given[name] for name in ("root", "archive", "recovered") if name in given}
    of_job = {name: value for name, value in given.items() if name not in of_task}
    options = SaveOptions(output_dir=URL, **of_job)
    assert Offers(CLUSTER).of("node", task(**of_task), options) is None


def test_a_bucket_without_a_configuration_is_reached_as_the_node_does() -> None:
    offer = offered(root="s3://other/x")
    assert (offer.place, dict(offer.destination.options)) == ("s3://other", {})


def test_a_node_that_cannot_send_is_left_alone_for_a_while_and_told_once() -> None:
    clock = Clock()
    offers, options = Offers(CLUSTER, clock), SaveOptions(output_dir=URL)
    offer = offered()
    told = offers.came("node", offer, Refused("it is not there.", False))
    assert told == "Workers on the node node cannot send to store, so the farm does: it is not there."
    assert offers.of("node", task(), options) is None
    assert offers.of("other node", task(), options) is not None
    pauses = []
    for _ in range(9):
        start = clock.now
        while offers.of("node", task(), options) is None:
            clock.now += FIRST_PAUSE_S / 2
        pauses.append(clock.now - start)
        assert offers.came("node", offer, Refused("still not.", False)) == ""
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LAST_PAUSE_S
    assert offers.came("node", offer, None) == "Workers on the node node send to store again."
    assert offers.came("node", offer, None) == ""
    assert offers.of("node", task(), options) is not None


def test_a_name_that_is_taken_says_nothing_about_the_node() -> None:
    offers = Offers(CLUSTER)
    assert offers.came("node", offered(), Refused("taken", True)) == ""
    assert offers.of("node", task(), SaveOptions(output_dir=URL)) is not None


def test_what_is_sent_leaves_its_bytes_behind(bucket: Bucket) -> None:
    """All files under their reserved names, the image last."""
    outputs = (
        {"format": "png", "path": f"{URL}/day/a_A.png"},
        {"format": "jpeg", "path": f"{URL}/day/a_A_s.jpg", "max_side": 4, "suffix": "s"},
    )
    made, bodies, refused = encoded(offered(), outputs=outputs)
    assert isinstance(made, Made)
    assert (bodies, refused) == ([], None)
    assert list(bucket.kept) == ["shots/day/a_A_s.jpg", "shots/day/a_A.png"]
    assert [upload.token for upload, _ in bucket.kept.values()] == ["job-0-o1", "job-0"]
    assert bucket.again == [False, False]
    assert [file["name"] for file in made.stored] == ["day/a_A.png", "day/a_A_s.jpg"]
    assert made.stored[0]["bytes"] == len(bucket.kept["shots/day/a_A.png"][1])
    assert made.ms["send"] > 0


@pytest.mark.parametrize(("kind", "about_image"), [("exists", True), ("name", True), ("credentials", False)])
def test_what_cannot_be_sent_comes_back_whole(bucket: Bucket, kind: str, about_image: bool) -> None:
    bucket.refused = (kind,)
    made, bodies, refused = encoded(offered())
    assert bodies[0].tobytes().startswith(b"\x89PNG")
    assert (refused.about_image, made.stored) == (about_image, ())
    assert "s3://bucket" in refused.error


def test_a_service_that_does_not_answer_costs_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    over = threading.Event()

    class Hanging(Bucket):
        def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
            over.wait(60)
            return super().put(key, upload, body, again=again)

    monkeypatch.setattr(sending, "open_sink", lambda location, options: Hanging())
    try:
        _, bodies, refused = encoded(replace(offered(), send_s=0.05))
    finally:
        over.set()
    assert (len(bodies), refused.about_image) == (1, False)
    assert "did not answer in time" in refused.error


@pytest.mark.parametrize("error", [RuntimeError("the secret is in this text"), sinks.SinkError("no obstore")])
def test_a_broken_library_costs_no_image(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(location: Any, options: Any) -> Any:
        raise error

    monkeypatch.setattr(sending, "open_sink", broken)
    _, bodies, refused = encoded(offered())
    assert len(bodies) == 1
    assert "secret" not in refused.error


def test_credentials_are_those_of_the_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the variables that a farm reads, too; one that makes no sense is a sentence."""
    given: list[Any] = []
    monkeypatch.setattr(sending, "open_sink", lambda location, options: given.append(options) or Bucket())
    monkeypatch.setenv("LUNA_FARM_DESTINATION_STORE_SECRET_ACCESS_KEY", "of the node")
    encoded(offered())
    assert given[0]["secret_access_key"] == "of the node"
    assert (given[0]["region"], given[0]["timeout"]) == ("x", 5.0)
    monkeypatch.setenv("LUNA_FARM_DESTINATION_STORE_UPLOADS", "many")
    _, _, refused = encoded(offered())
    assert "LUNA_FARM_DESTINATION_STORE_UPLOADS" in refused.error
