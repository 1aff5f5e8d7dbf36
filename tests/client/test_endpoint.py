"""Where a client looks for its farm, and with which token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luna_farm_client.endpoint import Endpoint


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOST", "PORT", "TOKEN", "STATE_DIR", "TLS_CERT", "CONFIG"):
        monkeypatch.delenv(f"LUNA_FARM_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(**given: object) -> Endpoint:
    return Endpoint.find(**{"host": None, "port": None, "token": None, "tls": None, **given})  # type: ignore[arg-type]


def test_by_default_it_is_the_port_of_the_documents() -> None:
    assert str(find()) == "127.0.0.1:19283"


def test_arguments_come_before_the_environment_and_that_before_the_file(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nowhere / "luna-farm.toml").write_text("[server]\nport = 1111\n")
    assert find().port == 1111
    monkeypatch.setenv("LUNA_FARM_PORT", "2222")
    assert find().port == 2222
    assert find(port=3333).port == 3333
    monkeypatch.setenv("LUNA_FARM_HOST", "127.0.0.2")
    assert find().host == "127.0.0.2"


def test_the_gallery_of_a_job_is_where_the_state_folder_says(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(nowhere))
    assert find().gallery("a1b2c3d4") == ""
    told = {"host": "127.0.0.1", "port": 19283, "feed_port": 4711, "pid": 1}
    (nowhere / "endpoint.json").write_text(json.dumps(told))
    assert find().gallery("a1b2c3d4") == "http://127.0.0.1:4711/gallery?job=a1b2c3d4"
    assert find(host="::1").gallery("a") == "http://[::1]:4711/gallery?job=a"
    assert find(port=1).gallery("a") == "", "another farm"
    assert find(host="farm.example").gallery("a") == "", "another machine"
    (nowhere / "endpoint.json").write_text(json.dumps({**told, "feed_port": None}))
    assert find().gallery("a") == "", "it has no feed"


def test_the_token_is_read_anew_each_time(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(nowhere / "state"))
    endpoint = find()
    assert endpoint.token() == ""
    (nowhere / "state").mkdir()
    for token in ("first", "second"):
        (nowhere / "state" / "token").write_text(token + "\n")
        assert endpoint.token() == token
    monkeypatch.setenv("LUNA_FARM_TOKEN", "of the environment, long enough")
    assert find().token() == "of the environment, long enough"
    assert find(token="given").token() == "given"
