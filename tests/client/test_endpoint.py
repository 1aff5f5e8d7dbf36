"""Where a client looks for its farm, and with which token."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import pytest

from luna_farm.errors import Unauthorized, from_code
from luna_farm_client.endpoint import Endpoint, why_not


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


def test_a_recommended_command_names_the_farm(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Start one with `luna-farm start`."
    assert find().command(text) == text
    assert find(port=7).command(text) == "Start one with `luna-farm start --port 7`."
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(nowhere / "my state"))
    assert find().command(text) == f"Start one with `luna-farm start --state-dir '{nowhere / 'my state'}'`."
    assert "--host farm.example" in find(host="farm.example", tls=ssl.create_default_context()).command(text)


def test_why_there_is_no_farm_depends_on_where_it_would_be() -> None:
    unknown = socket.gaierror(-2, "Name or service not known")
    assert why_not(find(host="nosuch.invalid"), unknown).startswith(
        "There is no host nosuch.invalid (Name or"
    )
    refused = ConnectionRefusedError(111, "Connection refused")
    assert why_not(find(port=7), refused).endswith("Start one with `luna-farm start --port 7`.")
    elsewhere = why_not(find(host="farm.example"), refused)
    assert "luna-farm start" not in elsewhere
    assert "Start one on that machine" in elsewhere


def test_a_refused_token_is_named_by_where_it_came_from(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = from_code("unauthorized", "Not with this one.", Unauthorized("", True).details())
    assert isinstance(refused, Unauthorized)
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(nowhere))
    assert f"{nowhere} has no token" in str(find().refused(refused))
    (nowhere / "token").write_text("of another farm")
    told = str(find().refused(refused))
    assert f"does not accept the token of {nowhere}. It uses another state folder" in told
    assert "LUNA_FARM_TOKEN" in str(find(token="given").refused(refused))
    other = Unauthorized("The token would do, but this farm belongs to another user of this machine.")
    assert find().refused(other) is other
