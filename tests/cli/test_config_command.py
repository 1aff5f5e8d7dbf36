"""`config init`: a file with every setting that changes nothing until it is edited."""

from __future__ import annotations

import errno
import os

from luna_farm import config, config_settings
from luna_farm.cli import config as command


def test_the_file_is_written_once_and_changes_nothing(cli, tmp_path):
    code, out, _ = cli("config", "init", "--file", "new/luna-farm.toml")
    path = tmp_path / "new" / "luna-farm.toml"
    assert (code, str(path) in out) == (0, True)
    assert config.load({}, {}, path) == config.load({}, {}, None)
    path.write_text("mine")
    code, _, err = cli("config", "init", "--file", path)
    assert (code, path.read_text()) == (1, "mine")
    assert "stays as it is" in err


def test_without_a_name_it_is_where_farms_look_for_it(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "user_config_dir", lambda: tmp_path / "of the user")
    assert cli("config", "init")[0] == 0
    assert (tmp_path / "of the user" / config.FILE_NAME).is_file()


def test_every_setting_stands_in_it_with_its_default(cli, tmp_path):
    code, out, _ = cli("config", "init", "--print")
    assert code == 0
    settings = [setting for setting in config_settings.SETTINGS if not setting.secret]
    kept = [line.removeprefix("# ") for line in out.splitlines()]
    text = "\n".join(line for line in kept if line.startswith("[") or " = " in line.split(";")[0])
    path = tmp_path / config.FILE_NAME
    path.write_text(text)
    loaded = config.load({}, {}, path)
    assert {setting.name for setting in settings} == loaded.given
    usual = config.load({}, {}, None)
    for setting in settings:
        assert getattr(loaded, setting.name) == getattr(usual, setting.name), setting.name


def test_without_room_nothing_half_is_left(cli, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(command.os, "fdopen", full)
    code, _, err = cli("config", "init", "--file", "x.toml")
    assert code == 1
    assert err.startswith(f"Cannot write {tmp_path / 'x.toml'}: No space left on device")
    assert not (tmp_path / "x.toml").exists()
