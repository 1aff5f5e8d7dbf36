"""URLs of destinations: what is read, and that what is refused says why and shows nothing secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.errors import InvalidRequest
from luna_farm.locations import SCHEMES, Location, belongs_to, check_folder, check_key, is_url, parse


@pytest.mark.parametrize("text", ["s3://b", "S3://b/x", "webdav+https://h", "file:///x", "gopher://x"])
def test_a_url_is_told_from_a_folder(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize(
    "text", ["/a/b", "C:\\x", "C:/x", "//server/share", "\\\\server\\share", "a://"[1:], ""]
)
def test_a_folder_is_no_url(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("s3://Bucket/a/b/", Location("s3", "Bucket", "a/b")),
        ("S3://bucket", Location("s3", "bucket", "")),
        ("az://$web/x", Location("az", "$web", "x")),
        ("sftp://NAS.example.org:2222//shots//x", Location("sftp", "nas.example.org:2222", "shots/x")),
        ("webdav+https://[::1]:80/a%20b", Location("webdav+https", "[::1]:80", "a%20b")),
    ],
)
def test_url_is_read(url: str, wanted: Location) -> None:
    assert parse("output_dir", url) == wanted
    assert parse("output_dir", wanted.url) == wanted


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("gopher://x/y", "sftp://"),
        ("s3://", "BUCKET"),
        ("s3://b/../x", ".."),
        ("s3://b/a\\b", "backslashes"),
        ("s3://b/a\nb", "control"),
        ("s3://b/a\ud800", "surrogates"),
        ("sftp://user:sesame@host/x", "[destinations.NAME]"),
        ("sftp://sesame@host/x", "[destinations.NAME]"),
        ("s3://b/x?AWSAccessKeyId=sesame", "[destinations.NAME]"),
        ("az://c?sig=sesame", "[destinations.NAME]"),
        ("https://sesame@example.org/x", "s3://"),
        ("s3://AKIA:sesame/open+sesame@bucket/x", "[destinations.NAME]"),
        ("s3://AKIA:123/sesame@bucket/x", "[destinations.NAME]"),
        ("sftp://user:sesame/sesame@host", "[destinations.NAME]"),
        ("sftp://host:65536/x", "65535"),
        ("ftp://host:0/x", "65535"),
        ("s3://bucket:9000/x", "s3://BUCKET/PREFIX"),
        ("s3://..", "s3://BUCKET/PREFIX"),
        ("sftp://host;password=sesame/x", "'sftp://host...'"),
        ("ftp://host:sesame/x", "'ftp://host:...'"),
    ],
)
def test_what_is_refused_says_what_is_allowed(url: str, word: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse("output_dir", url)
    assert str(caught.value).startswith("output_dir: ")
    assert word in str(caught.value)
    assert "sesame" not in str(caught.value) + caught.value.given


def test_a_path_may_hold_an_at_sign() -> None:
    assert parse("output_dir", "sftp://nas:2222/@home/x") == Location("sftp", "nas:2222", "@home/x")
    assert parse("output_dir", "s3://b/@x") == Location("s3", "b", "@x")


@pytest.mark.parametrize("text", ["s3:/bucket/x", "S3:\\bucket", "webdav+https:/host"])
def test_a_misspelt_url_is_no_folder(text: str) -> None:
    with pytest.raises(InvalidRequest, match="://"):
        check_folder("output_dir", text)


@pytest.mark.parametrize("before", [" ", "\t\n", "'", '"', "\u200b", "<"])
@pytest.mark.parametrize(
    "url", ["s3://sesame:open@b/x", "SFTP:\\\\h\\x", "webdav+https://h", "gopher://sesame"]
)
def test_a_url_behind_blanks_or_quotes_is_no_folder(before: str, url: str) -> None:
    with pytest.raises(InvalidRequest, match="without blanks and quotes") as told:
        check_folder("output_dir", before + url)
    assert "sesame" not in str(told.value)


@pytest.mark.parametrize(
    "text", ["/a/s3:/x", "./s3:/x", "C:\\x", "C:/x", "s3", "s3://bucket", "s3:x", " C:\\\\x", " a/b://c"]
)
def test_other_folders_are(text: str) -> None:
    check_folder("output_dir", text)


@given(st.sampled_from(sorted(SCHEMES)), st.text(max_size=40))
def test_any_text_is_a_location_or_refused(scheme: str, rest: str) -> None:
    try:
        location = parse("output_dir", f"{scheme}://{rest}")
    except InvalidRequest:
        return
    assert parse("output_dir", location.url) == location


def test_the_longest_prefix_decides() -> None:
    known = [("all", Location("s3", "b")), ("shots", Location("s3", "b", "shots"))]
    assert belongs_to(Location("s3", "b", "shots/day"), known) == "shots"
    assert belongs_to(Location("s3", "b", "shotsday"), known) == "all"
    assert belongs_to(Location("s3", "c"), known) == ""
    assert belongs_to(Location("gs", "b"), known) == ""


def test_a_key_that_is_too_long_is_refused_by_its_bytes() -> None:
    check_key("save_path", "ü" * 500)
    with pytest.raises(InvalidRequest, match="1002 bytes"):
        check_key("save_path", "ü" * 501)
