"""Which farm a command speaks to: the one that was named, and never another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luna_farm import config, config_settings
from luna_farm.cli.farm import place


def placed(state: Path, cli: dict[str, object], environ: dict[str, str] | None = None) -> tuple[str, int]:
    return place(config.load({"state_dir": state, **cli}, environ or {}, None, serving=False))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    endpoint = {"host": "127.0.0.1", "port": 4711, "feed_port": None, "pid": 1}
    (tmp_path / "endpoint.json").write_text(json.dumps(endpoint))
    return tmp_path


DEFAULT = config_settings.BY_NAME["port"].default


@pytest.mark.parametrize(
    ("cli", "environ", "expected"),
    [
        ({}, {}, ("127.0.0.1", 4711)),
        ({"port": "0"}, {}, ("127.0.0.1", 4711)),
        ({"port": str(DEFAULT)}, {}, ("127.0.0.1", DEFAULT)),
        ({}, {"LUNA_FARM_PORT": str(DEFAULT)}, ("127.0.0.1", DEFAULT)),
        ({"host": "127.0.0.1"}, {}, ("127.0.0.1", 4711)),
        ({"host": "localhost"}, {}, ("localhost", DEFAULT)),
        ({"host": "localhost", "port": "5"}, {}, ("localhost", 5)),
    ],
)
def test_what_was_set_counts_even_if_it_is_the_default(
    cli: dict[str, object], environ: dict[str, str], expected: tuple[str, int], state: Path
) -> None:
    assert placed(state, cli, environ) == expected


def test_without_a_farm_in_the_state_folder_it_is_the_default(tmp_path: Path) -> None:
    assert placed(tmp_path, {}) == ("127.0.0.1", DEFAULT)
