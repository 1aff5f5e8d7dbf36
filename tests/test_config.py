"""Settings: order of the sources, complete checking, and errors that a person can act on."""

from __future__ import annotations

import contextlib
import os
import pickle
import runpy
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm import config, config_settings
from luna_farm.config import Config, load
from luna_farm.config_settings import SETTINGS
from luna_farm.config_values import parse_size
from luna_farm.errors import ConfigError

ROOT = Path(__file__).parents[1]


def file_with(folder: Path, text: str) -> Path:
    path = folder / "luna-farm.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_table_has_a_row_for_every_field_in_the_same_order():
    others = ("given", "destinations", "secrets")
    named = [entry.name for entry in fields(Config) if entry.name not in others]
    assert [setting.name for setting in SETTINGS] == named


def test_defaults_are_those_of_the_contract(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load({}, {}, None)
    assert (settings.host, settings.port, settings.feed_port) == ("127.0.0.1", 19283, 19284)
    assert (settings.min_workers, settings.max_workers, settings.idle_timeout_s) == (2, 4, 300.0)
    assert settings.output_dir == tmp_path / "output"
    assert settings.state_dir == config.default_state_dir()
    assert settings.state_dir.is_absolute()


def test_a_value_that_gives_way_is_judged_as_well(tmp_path):
    file = file_with(tmp_path, "[pool]\nmax_workers = 0\n")
    with pytest.raises(ConfigError, match="max_workers: 0 is not allowed"):
        load({}, {"LUNA_FARM_MAX_WORKERS": "2"}, file)
    with pytest.raises(ConfigError, match="max_workers: 'many' is not allowed"):
        load({"max_workers": 2}, {"LUNA_FARM_MAX_WORKERS": "many"}, None)


def test_every_default_is_allowed_by_its_own_reader():
    for setting in SETTINGS:
        if setting.name != "state_dir":
            setting.reader(setting.default, Path("/"))


@pytest.mark.parametrize(
    ("name", "env", "section", "key"),
    [
        ("host", "LUNA_FARM_HOST", "server", "host"),
        ("port", "LUNA_FARM_PORT", "server", "port"),
        ("feed_port", "LUNA_FARM_FEED_PORT", "server", "feed_port"),
        ("min_workers", "LUNA_FARM_MIN_WORKERS", "pool", "min_workers"),
        ("max_workers", "LUNA_FARM_MAX_WORKERS", "pool", "max_workers"),
        ("idle_timeout_s", "LUNA_FARM_IDLE_TIMEOUT", "pool", "idle_timeout"),
        ("state_dir", "LUNA_FARM_STATE_DIR", "server", "state_dir"),
        ("arena_bytes", "LUNA_FARM_ARENA_BYTES", "arena", "bytes"),
        ("output_dir", "LUNA_FARM_OUTPUT_DIR", "save", "output_dir"),
    ],
)
def test_names_are_those_of_the_contract(name, env, section, key):
    setting = config_settings.BY_NAME[name]
    assert (setting.env, setting.section, setting.key) == (env, section, key)


def test_command_line_beats_environment_beats_file_beats_default(tmp_path):
    file = file_with(tmp_path, "[server]\nport = 1003\nfeed_port = 1013\nhost = '127.0.0.3'\n")
    environ = {"LUNA_FARM_PORT": "1002", "LUNA_FARM_FEED_PORT": "1012", "PATH": "/bin"}
    settings = load({"port": 1001, "host": None}, environ, file)
    assert (settings.port, settings.feed_port, settings.host) == (1001, 1012, "127.0.0.3")
    assert settings.max_workers == 4


def test_an_empty_variable_counts_as_not_given():
    assert load({}, {"LUNA_FARM_PORT": ""}, None).port == 19283


def test_one_end_of_the_worker_range_moves_the_default_of_the_other():
    assert load({"max_workers": 1}, {}, None).min_workers == 1
    assert load({"min_workers": 9}, {}, None).max_workers == 9


def test_paths_of_the_file_start_from_its_folder_and_others_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = file_with(tmp_path, "[save]\noutput_dir = 'a/../b'\nfallback_dir = '~/x'\n")
    settings = load({"state_dir": "s"}, {}, file)
    assert settings.output_dir == tmp_path / "b"
    assert settings.fallback_dir == Path.home() / "x"
    assert settings.state_dir == tmp_path / "here" / "s"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("port", value) for value in (65536, -1, "x", 1.0, True, None.__class__, "")],
        *[("feed_port", value) for value in (-2, "none")],
        *[("host", value) for value in ("", "a b", "tcp://x", "x:1", "u@h", 5, " x")],
        *[("min_workers", value) for value in (0, 257)],
        *[("idle_timeout_s", value) for value in (0, "nan", "inf", float("inf"), True, "5s")],
        *[("arena_bytes", value) for value in (1, "1KiB", "many", "-1", True, 2**60, "1.2.3MB", "MiB")],
        *[("log_level", value) for value in ("loud", 3)],
        *[("fsync", value) for value in ("maybe", 1, 0)],
        *[("output_dir", value) for value in ("", "a\0b", 3)],
        *[("allowed_dirs", value) for value in (5, ["a", ""], [3])],
        *[("ray_address", value) for value in ("host", "host:0", "host:65536", "ray://h:1", 5)],
        ("output_dir", "~no-such-user-here/x"),
    ],
)
def test_a_refused_value_names_key_value_source_and_what_is_allowed(name, value, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load({name: value}, {}, None)
    setting = config_settings.BY_NAME[name]
    message = str(caught.value)
    assert message.startswith(f"{name}: {value!r} is not allowed")
    assert setting.option in message
    assert setting.allowed in message
    assert (caught.value.key, caught.value.given) == (name, repr(value))


def test_the_error_says_where_the_value_came_from(tmp_path):
    file = file_with(tmp_path, "[pool]\nmin_workers = 0\n")
    with pytest.raises(ConfigError, match=r"luna-farm\.toml, pool\.min_workers"):
        load({}, {}, file)
    with pytest.raises(ConfigError, match="the environment, LUNA_FARM_MIN_WORKERS"):
        load({}, {"LUNA_FARM_MIN_WORKERS": "0"}, file)


@pytest.mark.parametrize(
    ("cli", "environ", "text", "key", "near"),
    [
        ({"prot": 1}, {}, "", "prot", "port"),
        ({}, {"LUNA_FARM_MAX_WORKER": "1"}, "", "LUNA_FARM_MAX_WORKER", "LUNA_FARM_MAX_WORKERS"),
        ({}, {}, "[pool]\nmax_worker = 1\n", "pool.max_worker", "pool.max_workers"),
        ({}, {}, "[sever]\nport = 1\n", "sever.port", "server.port"),
        ({}, {}, "port = 1\n", "port", "server.port"),
        ({}, {}, "[server]\ntoken = 'abc'\n", "server.token", "server."),
        ({}, {}, "[server]\nhost.name = 'a'\n", None, None),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(cli, environ, text, key, near, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(cli, environ, file_with(tmp_path, text))
    if key is not None:
        assert str(caught.value).startswith(f"{key}: there is no such setting")
        assert f"nearest known one is {near}" in str(caught.value)
        assert caught.value.key == key


def test_variables_of_other_parts_are_left_alone():
    environ = {
        "LUNA_FARM_CONFIG": "x",
        "LUNA_FARM_TEST_ANY": "1",
        "LUNA_FARM_CRASH_ONCE": "1",
        "LUNA_FARMER": "1",
    }
    assert load({}, environ, None).port == 19283


@pytest.mark.parametrize(
    ("cli", "key"),
    [
        ({"min_workers": 5, "max_workers": 3}, "min_workers"),
        ({"port": 5000, "feed_port": 5000}, "feed_port"),
        ({"tls_cert": "c.pem"}, "tls_key"),
        ({"tls_key": "k.pem"}, "tls_cert"),
        ({"host": "0.0.0.0"}, "host"),
        ({"host": "farm.example", "tls_cert": "c", "tls_key": "k", "allowed_dirs": "/x"}, "host"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(cli, key):
    with pytest.raises(ConfigError) as caught:
        load(cli, {}, None)
    assert caught.value.key == key
    assert caught.value.allowed in str(caught.value)


def test_beyond_loopback_needs_all_four():
    cli = {"host": "0.0.0.0", "tls_cert": "c", "tls_key": "k", "allowed_dirs": ["/x"]}
    settings = load(cli, {"LUNA_FARM_TOKEN": "0123456789abcdef"}, None)
    assert settings.host == "0.0.0.0"
    assert settings.allowed_dirs == (Path("/x"),)
    with pytest.raises(ConfigError, match="at least 16") as caught:
        load(cli, {"LUNA_FARM_TOKEN": "0123456789abcde"}, None)
    assert "0123456789abcde" not in str(caught.value)


def test_a_fallback_folder_lies_in_an_allowed_one():
    cli = {"allowed_dirs": ["/x"], "fallback_dir": "/x/../y"}
    with pytest.raises(ConfigError) as caught:
        load(cli, {}, None)
    assert caught.value.key == "fallback_dir"
    assert load({**cli, "fallback_dir": "/x/y"}, {}, None).fallback_dir == Path("/x/y")


def test_a_client_may_speak_to_a_farm_anywhere():
    assert load({"host": "farm.example"}, {}, None, serving=False).host == "farm.example"


def test_two_free_ports_and_no_feed_are_allowed():
    assert load({"port": 0, "feed_port": 0}, {}, None).feed_port == 0
    assert load({}, {"LUNA_FARM_FEED_PORT": "off"}, None).feed_port == config.FEED_OFF
    assert load({"feed_port": -1}, {}, None).feed_port == config.FEED_OFF


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.3.2.1", "::1"])
def test_loopback(host):
    assert config.is_loopback(host)
    assert load({"host": host}, {}, None).host == host


def test_the_token_never_shows(tmp_path):
    settings = load({}, {"LUNA_FARM_TOKEN": "very-secret"}, None)
    assert settings.token == "very-secret"
    assert "very-secret" not in repr(settings)
    with pytest.raises(ConfigError) as caught:
        load({}, {"LUNA_FARM_TOKEN": "very-secret\n"}, None)
    assert "very-secret" not in str(caught.value) + str(caught.value.details())


@pytest.mark.parametrize("word", ["true", "YES", "on", "1"])
def test_words_for_yes(word):
    assert load({}, {"LUNA_FARM_DURABLE": word}, None).durable is True


@pytest.mark.parametrize("word", ["false", "No", "off", "0"])
def test_words_for_no(word):
    assert load({}, {"LUNA_FARM_FSYNC": word}, None).fsync is False


def test_lists_come_as_toml_or_as_one_text(tmp_path):
    file = file_with(tmp_path, "[server]\nallowed_dirs = ['/a', 'b']\n")
    assert load({}, {}, file).allowed_dirs == (Path("/a"), tmp_path / "b")
    text = os.pathsep.join(["/a", "/b", ""])
    assert load({}, {"LUNA_FARM_ALLOWED_DIRS": text}, None).allowed_dirs == (Path("/a"), Path("/b"))


@pytest.mark.parametrize("name", ["ALLOWED_DIRS", "MODEL_DIRS", "C2PA_INPUT_DIRS"])
@pytest.mark.parametrize(
    "text",
    [
        '["/a", "/b"]',
        ' [ "/a" , "/b" ] ',
        os.pathsep.join(["/a", "", "/b", ""]),
        f"/a/ {os.pathsep} /b\n",
    ],
)
def test_lists_of_paths_in_the_environment(name, text):
    config = load({}, {f"LUNA_FARM_{name}": text}, None)
    assert getattr(config, name.lower()) == tuple(Path(p).absolute() for p in ("/a", "/b"))


@pytest.mark.parametrize(
    "text",
    [
        "/a,/b",
        "/a, /b",
        "/a /b",
        "~/a, ~/b",
        r"C:\a,D:\b",
        r"C:\a D:\b",
        "/a;/b" if os.pathsep == ":" else "C:/a:D:/b",
        "['/a', '/b']",
        "[/a, /b]",
        '["/a", "/b"',
        '"/a", "/b"]',
        '["/a", 7]',
        '["/a", ""]',
        '{"a": "/a"}',
        "[[]]",
        '"/a"',
        "'/a'",
        os.pathsep,
        " ",
        "s3://bucket/a",
        f"/a{os.pathsep}s3://bucket/a",
        "file:///a",
    ],
)
def test_no_list_of_paths_is_taken_for_one_path(text):
    for environ in ({"LUNA_FARM_ALLOWED_DIRS": text}, {"LUNA_FARM_MODEL_DIRS": text}):
        with pytest.raises(ConfigError, match="as text with : between them"):
            load({}, environ, None)
    with pytest.raises(ConfigError, match="the command line, --allowed-dirs"):
        load({"allowed_dirs": text}, {}, None)


@pytest.mark.parametrize("path", ["/a, b", "/a,b/c", "/my folder", "/a;b", "[old]x", "/x/[old]", "/it's"])
def test_odd_names_are_paths_all_the_same(path):
    if os.pathsep not in path:
        found = load({}, {"LUNA_FARM_ALLOWED_DIRS": path, "LUNA_FARM_OUTPUT_DIR": path}, None)
        assert found.allowed_dirs == (found.output_dir,) == (Path(path).absolute(),)


@pytest.mark.parametrize("text", ['"/a"', "'/a'", "s3://bucket", "file:///a", " "])
def test_what_is_no_path_is_refused_where_one_is_wanted(text):
    for name in ("output_dir", "fallback_dir", "state_dir", "tls_key"):
        with pytest.raises(ConfigError, match="a path, not a URL, without quotes"):
            load({}, {f"LUNA_FARM_{name.upper()}": text}, None)


def test_lists_of_words_in_the_environment():
    for text in ('["prompt", "scores"]', "prompt,scores", "Scores, PROMPT,"):
        assert load({}, {"LUNA_FARM_CATALOGUE_FIELDS": text}, None).catalogue_fields == ("prompt", "scores")
    assert load({}, {"LUNA_FARM_CATALOGUE_FIELDS": "[]"}, None).catalogue_fields == ()
    for text in ("prompt scores", "prompt;scores", "['prompt']", "[prompt]", '"prompt"', "[7]", ","):
        with pytest.raises(ConfigError, match="a list of some of prompt"):
            load({}, {"LUNA_FARM_CATALOGUE_FIELDS": text}, None)


def test_a_list_of_the_file_is_taken_as_it_is(tmp_path):
    file = file_with(tmp_path, "[server]\nallowed_dirs = ['/a, /b']\n")
    assert load({}, {}, file).allowed_dirs == (Path("/a, /b"),)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        ("1.5GB", 1_500_000_000),
        ("2k", 2000),
        ("7B", 7),
    ],
)
def test_sizes(text, value):
    assert parse_size(text) == value


@given(st.text(max_size=12))
def test_a_size_is_read_or_refused_with_value_error(text):
    with contextlib.suppress(ValueError):
        assert parse_size(text) >= 0


@pytest.mark.parametrize("content", [b"[server\n", b"\xff\xfe[", b"port = \n"])
def test_a_file_that_is_not_toml_is_named(content, tmp_path):
    path = tmp_path / "luna-farm.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"luna-farm\.toml is not valid TOML"):
        load({}, {}, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: No such file"):
        load({}, {}, tmp_path / "gone.toml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    assert load({}, {}, file_with(tmp_path, "\ufeff[server]\nport = 7\n")).port == 7


def test_the_file_is_found_by_name_then_here_then_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(
        "platformdirs.user_config_dir", lambda name, appauthor: str(tmp_path / "config" / name)
    )
    assert config.find_file({}, tmp_path) is None
    (tmp_path / "config" / "luna-farm").mkdir(parents=True)
    user = file_with(tmp_path / "config" / "luna-farm", "")
    assert config.find_file({}, tmp_path) == user
    here = file_with(tmp_path, "")
    assert config.find_file({}, tmp_path) == here
    assert config.find_file({"LUNA_FARM_CONFIG": "other.toml"}, tmp_path) == tmp_path / "other.toml"


def test_settings_travel_to_a_spawned_worker():
    settings = load({"port": 5}, {}, None)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_table_of_the_documents_is_that_of_the_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert runpy.run_path(str(ROOT / "scripts" / "tables.py"))["main"]() == 0


def test_the_example_of_the_documents_is_accepted(tmp_path):
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    load({}, {}, file_with(tmp_path, page.split("```toml\n")[1].split("```")[0]))


@pytest.mark.parametrize("engine", ["ray", "auto"])
def test_a_farm_for_a_cluster_does_not_start_without_ray(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^Ray is not installed\. .* pip install 'luna-farm\[ray\]'"):
        load({"engine": engine}, {}, None)
    assert load({"engine": engine}, {}, None, serving=False).engine == engine, "a client needs none"
    assert load({}, {}, None).engine == "local"
