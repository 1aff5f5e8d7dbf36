"""[destinations.NAME]: what is read, what is refused, and that no secret is ever shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luna_farm.config import Config, load
from luna_farm.errors import ConfigError

TABLE = """
[destinations.nas]
url = "sftp://nas.example.org:2222/shots/"
user = "luna"
password = "sesame-1"
known_hosts = "hosts"
uploads = 3
[destinations.cloud]
url = "s3://bucket/prefix"
endpoint = "https://s3.example.org/"
secret_access_key = "sesame-2"
"""


def read(tmp_path: Path, text: str, **environ: str) -> Config:
    file = tmp_path / "luna-farm.toml"
    file.write_text(text)
    return load({}, environ, file)


def test_destinations_are_read_and_their_secrets_named(tmp_path: Path) -> None:
    config = read(tmp_path, TABLE, LUNA_FARM_DESTINATION_CLOUD_ACCESS_KEY_ID="sesame-3")
    nas, cloud = config.destinations
    assert (nas.name, nas.url, nas.uploads) == ("nas", "sftp://nas.example.org:2222/shots", 3)
    assert nas.options["known_hosts"] == tmp_path / "hosts"
    assert cloud.options["endpoint"] == "https://s3.example.org"
    assert cloud.options["access_key_id"] == "sesame-3"
    assert cloud.uploads == 8
    assert set(config.secrets) == {"sesame-1", "sesame-2", "sesame-3"}
    assert "sesame" not in repr(config)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, TABLE, LUNA_FARM_DESTINATION_NAS_PASSWORD="other")
    assert config.destinations[0].options["password"] == "other"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[destinations.a]\nuser = "x"', ["destinations.a.url", "s3://"]),
        ('[destinations.a]\nurl = "gopher://x/y"', ["destinations.a.url", "gopher", "s3://", "sftp://"]),
        ('[destinations.a]\nurl = "s3://KEY:sesame@bucket"', ["destinations.a.url", "s3://bucket"]),
        ('[destinations.a]\nurl = "az://c/x?sig=sesame"', ["destinations.a.url", "az://c"]),
        ('[destinations.a]\nurl = "s3://b"\nuser = "x"', ["destinations.a.user", "s3", "endpoint"]),
        ('[destinations.a]\nurl = "s3://b"\npasword = "sesame"', ["destinations.a.pasword"]),
        ('[destinations.a]\nurl = "s3://b"\nuploads = 0', ["destinations.a.uploads", "1 to 64"]),
        ('[destinations.a]\nurl = "s3://b"\nendpoint = "s3.example.org"', ["endpoint", "https://"]),
        ('[destinations.a]\nurl = "s3://b"\nendpoint = "http://exa mple"', ["endpoint", "https://"]),
        ('[destinations.a]\nurl = "s3://b"\nendpoint = "http://host:99999"', ["endpoint", "https://"]),
        ('[destinations.a]\nurl = "s3://b"\nendpoint = "https://"', ["endpoint", "https://"]),
        ('[destinations.a]\nurl = "s3://b"\nendpoint = "http://host/x?key=1"', ["endpoint", "https://"]),
        ('[destinations.a]\nurl = "s3://b"\nendpoint = "https://me:sesame@host"', ["endpoint", "hidden"]),
        ('[destinations.a]\nurl = "s3://b"\nsecret_access_key = ["sesame"]', ["secret_access_key"]),
        ("destinations = 3", ["destinations"]),
    ],
)
def test_what_is_not_allowed_is_named_without_secrets(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    said = str(caught.value) + json.dumps(caught.value.details())
    assert all(word in said for word in words)
    assert "sesame" not in said


def test_a_variable_of_no_destination_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LUNA_FARM_DESTINATION_OTHER_PASSWORD") as caught:
        read(tmp_path, TABLE, LUNA_FARM_DESTINATION_OTHER_PASSWORD="sesame")
    assert "sesame" not in str(caught.value)
