"""What the gallery is answered: images by number, never by path, and nothing that is no image."""

from __future__ import annotations

import os
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_farm import TOKEN, FakeFarm
from fake_gallery import FakeGallery
from feed_visitor import Visitor

from luna_farm import system, system_desktop
from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.errors import NotPossible
from luna_farm.feed import auth, gallery

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100


@pytest.fixture
def images(tmp_path: Path) -> FakeGallery:
    made = FakeGallery(tmp_path, now=1_800_000_000.0)
    made.fill(6, small=3)
    yield made
    made.close()


@pytest.fixture
async def farm(images: FakeGallery) -> AsyncIterator[FakeFarm]:
    fake = FakeFarm()
    feed = await fake.serve(gallery=images.gallery())
    yield fake
    await feed.close()


async def ids(visitor: Visitor, query: str = "") -> list[int]:
    answer = await visitor.ask(f"/api/gallery/ids?{query}")
    assert answer.status == 200, answer.body
    return [int(number) for number in array("d", answer.body)]


async def test_ids_are_those_that_match_the_newest_first(visitor: Visitor, images: FakeGallery) -> None:
    found = await ids(visitor)
    assert found == sorted(found, reverse=True)
    assert len(found) == 6
    assert await ids(visitor, "job=00000001") == found[:3]
    assert await ids(visitor, f"since={found[1] // 1000}&until={found[1] // 1000 + 1}") == [found[1]]
    row = images.row(5, 0.0, file=False)
    assert await ids(visitor, f"seed={row.seed}") == found[:1]
    assert await ids(visitor, "seed=-99999999999999999999") == []
    assert await ids(visitor, "since=9999999999999999") == []
    assert await ids(visitor, "until=9999999999999999") == found
    assert await ids(visitor, "model=flux&score=variance%3E2") == []
    assert await ids(visitor, f"similar={row.phash}") == found[:1]
    images.fail(1, "no")
    assert len(await ids(visitor, "failed=1")) == 1


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("ids?seed=x", "seed"),
        ("ids?seed=--5", "seed"),
        ("ids?since=-1", "since"),
        ("ids?similar=xyz", "similar"),
        ("ids?score=beauty", "score"),
        ("ids?words=%ff", "query"),
        ("tiles?ids=1,x", "ids"),
        ("tiles?first=many", "first"),
        ("thumbnails?images=a1b2c3d4/0,a1b2c3d4", "images"),
        ("image?id=", "id"),
        ("file?id=../../etc/passwd", "id"),
    ],
)
async def test_a_question_that_cannot_be_read_is_refused_by_name(
    visitor: Visitor, path: str, field: str
) -> None:
    answer = await visitor.ask(f"/api/gallery/{path}")
    assert (answer.status, answer.body.startswith(field.encode())) == (400, True), answer.body


async def test_the_first_tiles_of_a_search_say_what_is_not_looked_for(visitor: Visitor) -> None:
    answer = await visitor.ask("/api/gallery/tiles?first=4&words=%22golden")
    assert answer.json["tiles"] == []
    assert "is not closed" in answer.json["remarks"][0]
    assert (await visitor.ask("/api/gallery/tiles?first=4")).json["remarks"] == []


async def test_tiles_bring_what_is_kept(visitor: Visitor) -> None:
    found = await ids(visitor)
    answer = await visitor.ask(f"/api/gallery/tiles?ids={','.join(map(str, [*found, 1]))}")
    tiles = answer.json["tiles"]
    assert [tile["id"] for tile in tiles] == found
    assert [tile["thumbnail"] is not None for tile in tiles] == [True] * 3 + [False] * 3
    assert [tile["local"] for tile in tiles] == [True] * 3 + [False] * 3, "the files are not there"
    assert [tile["gone"] for tile in tiles] == [False] * 3 + [True] * 3
    assert tiles[0]["name"] == "night_000005_DETAILED.png"


async def test_thumbnails_are_found_by_job_and_number(visitor: Visitor) -> None:
    found = [(await visitor.ask(f"/api/gallery/image?id={number}")).json for number in await ids(visitor)]
    asked = [f"{row['job_id']}/{row['index']}" for row in found]
    answer = await visitor.ask(f"/api/gallery/thumbnails?images={','.join([*asked, 'none/0'])}")
    assert set(answer.json["thumbnails"]) == set(asked[:3]), "of the others none is kept"
    assert (await visitor.ask("/api/gallery/thumbnails")).json == {"thumbnails": {}}


async def test_the_first_tiles_of_a_search_come_without_its_ids(visitor: Visitor) -> None:
    matching = await ids(visitor, "score=gate>0.5")
    answer = await visitor.ask("/api/gallery/tiles?first=2&score=gate>0.5")
    assert [tile["id"] for tile in answer.json["tiles"]] == matching[:2]
    assert (await visitor.ask("/api/gallery/tiles?first=many")).status == 400


async def test_an_image_comes_with_all_that_is_known_and_its_seed_whole(
    visitor: Visitor, images: FakeGallery
) -> None:
    (newest, *_) = await ids(visitor)
    known = (await visitor.ask(f"/api/gallery/image?id={newest}")).json
    assert known["seed"] == str(images.row(5, 0.0, file=False).seed)
    assert known["prompt"].endswith("detailed foreground")
    assert (await visitor.ask("/api/gallery/image?id=1")).status == 404


async def test_a_file_is_sent_as_data_and_not_as_a_page(visitor: Visitor, images: FakeGallery) -> None:
    (newest, *_) = await ids(visitor)
    path = images.out / "night_000005_DETAILED.png"
    path.write_bytes(PNG)
    answer = await visitor.ask(f"/api/gallery/file?id={newest}")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, PNG, "image/png")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = await visitor.ask(f"/api/gallery/file?id={newest}", method="HEAD")
    assert head.body == b""


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
        (b"RIFF\0\0\0\0WAVE", ""),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", ""),
        (b"<html><script>", ""),
        (b"", ""),
    ],
)
async def test_only_images_are_sent(visitor: Visitor, images: FakeGallery, content: bytes, kind: str) -> None:
    (newest, *_) = await ids(visitor)
    (images.out / "night_000005_DETAILED.png").write_bytes(content)
    answer = await visitor.ask(f"/api/gallery/file?id={newest}")
    assert (answer.status, answer.headers["content-type"] == kind) == ((200, True) if kind else (404, False))


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="NOT TESTED: this system follows links always")
async def test_a_link_a_folder_a_pipe_and_what_is_gone_are_not_sent(
    visitor: Visitor, images: FakeGallery
) -> None:
    (newest, *_) = await ids(visitor)
    path = images.out / "night_000005_DETAILED.png"
    elsewhere = images.folder / "elsewhere.png"
    elsewhere.write_bytes(PNG)
    for make in (lambda: path.symlink_to(elsewhere), path.mkdir, lambda: os.mkfifo(path), lambda: None):
        make()
        answer = await visitor.ask(f"/api/gallery/file?id={newest}")
        assert (answer.status, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


async def test_a_folder_that_became_a_link_leads_nowhere(visitor: Visitor, images: FakeGallery) -> None:
    """Any program that may write to an output folder can put a link there: to what only the farm may read."""
    (newest, *_) = await ids(visitor)
    (images.out / "night_000005_DETAILED.png").write_bytes(PNG)
    assert (await visitor.ask(f"/api/gallery/file?id={newest}")).status == 200
    elsewhere = images.folder / "elsewhere"
    images.out.rename(elsewhere)
    images.out.symlink_to(elsewhere)
    answer = await visitor.ask(f"/api/gallery/file?id={newest}")
    assert (answer.status, b"catalogue rebuild" in answer.body) == (404, True)


async def test_a_folder_that_was_a_link_when_the_image_was_saved_is_read(
    visitor: Visitor, images: FakeGallery
) -> None:
    disk, link = images.folder / "disk", images.folder / "link"
    disk.mkdir()
    link.symlink_to(disk)
    (disk / "a.png").write_bytes(PNG)
    row = CatalogueRow(path=f"{link}/a.png", saved_at=1_900_000_000.0, real_folder=str(disk))
    images.store.put([row])
    (newest, *_) = await ids(visitor)
    assert (await visitor.ask(f"/api/gallery/file?id={newest}")).body == PNG
    link.unlink()
    other = images.folder / "other"
    other.mkdir()
    (other / "a.png").write_bytes(PNG)
    link.symlink_to(other)
    assert (await visitor.ask(f"/api/gallery/file?id={newest}")).status == 404


async def test_an_image_in_an_archive_says_so(visitor: Visitor, images: FakeGallery) -> None:
    shard = images.out / "shard.tar"
    shard.write_bytes(b"tar")
    images.store.put([CatalogueRow(path=f"{shard}/a.png", saved_at=1_900_000_000.0)])
    (newest, *_) = await ids(visitor)
    answer = await visitor.ask(f"/api/gallery/file?id={newest}")
    assert (answer.status, b"is in an archive" in answer.body) == (404, True)


async def test_a_file_above_the_bound_is_not_sent(
    visitor: Visitor, images: FakeGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MAX_FILE_BYTES", 10)
    (newest, *_) = await ids(visitor)
    (images.out / "night_000005_DETAILED.png").write_bytes(PNG)
    answer = await visitor.ask(f"/api/gallery/file?id={newest}")
    assert (answer.status, b"at most 10 are shown" in answer.body) == (404, True)


async def test_what_is_at_a_destination_is_no_file_of_this_machine(
    visitor: Visitor, images: FakeGallery
) -> None:
    images.store.put([CatalogueRow(path="s3://bucket/a.png", saved_at=1_900_000_000.0)])
    (newest, *_) = await ids(visitor)
    assert (await visitor.ask(f"/api/gallery/file?id={newest}")).status == 404
    assert (await visitor.ask(f"/api/gallery/image?id={newest}")).json["is_url"]


@pytest.mark.parametrize("path", ["", "/ids", "/tiles?ids=1", "/image?id=1", "/file?id=1"])
async def test_the_door_is_that_of_the_feed(
    visitor: Visitor, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"/api/gallery{path}"
    assert (await visitor.ask(address, Origin="http://evil.example")).status == 403
    assert (await visitor.ask(address, Host="evil.example")).status == 403
    monkeypatch.setattr(auth, "PLATFORM_TELLS", True)
    monkeypatch.setattr(system, "peer_uid", lambda sock: None)
    assert (await visitor.ask(address)).status == 401
    assert (await visitor.ask(address, Authorization="Bearer wrong")).status == 401
    assert (await visitor.ask(address, Authorization=f"Bearer {TOKEN}")).status in (200, 404)
    assert (await visitor.ask("/gallery")).status == 200, "the page itself names nothing"


async def test_a_folder_is_opened_by_number_and_for_who_has_the_token(
    visitor: Visitor, farm: FakeFarm, images: FakeGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Path] = []
    monkeypatch.setattr(system_desktop, "open_path", shown.append)
    (newest, *_) = await ids(visitor)
    act = {"type": "action", "name": "open_folder", "row": newest}
    async with visitor.subscribe() as subscription:
        assert (await subscription.answer(token="x", **act))["code"] == "unauthorized"
        answer = await subscription.answer(token=TOKEN, **act)
        assert answer["result"] == {"opened": str(images.out)}
        gone = await subscription.answer(token=TOKEN, **{**act, "row": 1})
        assert gone["code"] == "not_possible"
    assert shown == [images.out]
    assert farm.acted == [], "it is no matter of the supervisor"


async def test_a_farm_for_others_opens_no_folders(images: FakeGallery) -> None:
    remote = images.gallery(can_open=False)
    with pytest.raises(NotPossible):
        remote.open_folder(1)
    remote.close()


async def test_a_damaged_catalogue_is_said(visitor: Visitor, images: FakeGallery) -> None:
    images.close()
    for file in images.folder.glob("catalogue*"):
        file.unlink()
    (images.folder / "catalogue.sqlite").write_bytes(b"no database" * 1000)
    answer = await visitor.ask("/api/gallery/ids")
    assert (answer.status, b"catalogue" in answer.body) == (503, True)


async def test_without_a_catalogue_there_is_no_gallery() -> None:
    fake = FakeFarm()
    feed = await fake.serve()
    visitor = Visitor(fake)
    assert (await visitor.ask("/api/gallery/ids")).status == 404
    async with visitor.subscribe() as subscription:
        answer = await subscription.answer(type="action", name="open_folder", row=1, token=TOKEN)
    assert answer["code"] == "not_possible"
    await feed.close()
