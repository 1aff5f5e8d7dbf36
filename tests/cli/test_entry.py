"""From arguments to an exit code: every error a sentence, nothing heavy loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from luna_farm import __main__ as program
from luna_farm import config
from luna_farm.cli import entry, options
from luna_farm.errors import ConfigError, FarmError, FarmUnavailable, InvalidRequest, UnknownJob


@pytest.fixture
def command(monkeypatch):
    """Replace what `jobs` does."""

    def does(work):
        monkeypatch.setattr("luna_farm.cli.jobs.run", lambda args, config: work())

    return does


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (FarmUnavailable("No farm there."), 3, "No farm there."),
        (ConfigError("port: 1.5 is not allowed."), 2, "port: 1.5 is not allowed."),
        (UnknownJob("No job."), 1, "No job."),
        (InvalidRequest.of("limit", 0, "1 to 9"), 2, "--limit: 0 is not allowed"),
        (InvalidRequest.of("FILE", "x", "an image"), 1, "FILE: 'x' is not allowed"),
        (FarmError("Odd."), 1, "Odd."),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 1, "x.png does not exist.\n"),
        (PermissionError(13, "Permission denied", "x"), 1, "Cannot use x: Permission denied (EACCES)."),
        (OSError("strange"), 1, "strange."),
        (KeyboardInterrupt(), 130, "Stopped."),
        (RuntimeError("oops"), 1, "Unexpected RuntimeError: oops"),
    ],
)
def test_every_error_is_one_line_on_standard_error_and_a_code(error, code, text, command, cli):
    command(raising(error))
    got, out, err = cli("jobs")
    assert got == code
    assert out == ""
    assert err.startswith(text)
    assert err.count("\n") == 1


def test_debug_shows_where_an_unexpected_error_comes_from(command, monkeypatch, cli):
    command(raising(RuntimeError("oops")))
    monkeypatch.setenv("LUNA_FARM_LOG_LEVEL", "debug")
    with pytest.raises(RuntimeError):
        cli("jobs")


def test_the_code_of_the_command_is_passed_on(command, cli):
    command(lambda: 7)
    assert cli("jobs")[0] == 7


def test_an_error_is_red_on_a_terminal_only(command, monkeypatch, capsys):
    command(raising(FarmError("Odd.")))
    entry.main(["jobs"])
    assert capsys.readouterr().err == "Odd.\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    entry.main(["jobs"])
    assert capsys.readouterr().err == "\033[31mOdd.\033[0m\n"


def test_without_a_command_help_is_shown_and_that_is_wrong_usage(cli):
    code, out, _ = cli()
    assert code == 2
    for name in entry.COMMANDS:
        assert re.search(rf"\n    {name}\s", out)


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_every_command_has_help_with_examples_and_tells_which_farm(name, cli):
    code, out, _ = cli(name, "--help")
    assert code == 0
    assert ("--state-dir" in out) == (name not in entry.OF_NO_FARM)
    assert "luna-farm " + name in out.replace("usage: luna-farm", "")


@pytest.mark.parametrize("name", sorted({"start", "status", "save", "bench", "stop", "jobs", "logs"}))
def test_help_shows_every_default_once(name, cli):
    text = " ".join(cli(name, "--help")[1].split())
    assert "(default: 127.0.0.1)" in text
    assert "(default: None)" not in text
    assert "(default: False)" not in text
    for shown in re.findall(r"\(([0-9]+)\)", text):
        raise AssertionError(f"{shown} is a default in its own style")


def test_wrong_usage_is_code_2(cli):
    assert cli("no-such-command")[0] == 2
    assert cli("jobs", "--no-such-option")[0] == 2
    assert cli("jobs", "--port", "99999")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["statsu"],
            "luna-farm: there is no command statsu (did you mean status?). `luna-farm --help` shows",
        ),
        (
            ["jobs", "--limt", "3"],
            "luna-farm jobs: there is no option --limt (did you mean --limit?). `luna-farm",
        ),
        (["jobs", "--zzzzzz"], "luna-farm jobs: there is no option --zzzzzz. `luna-farm jobs --help` shows"),
        (["job", "a", "b c"], "luna-farm job: too many arguments: 'b c'."),
        (
            ["save", "--format", "gif", "x"],
            "luna-farm save: --format: gif is not allowed; allowed: png, webp,",
        ),
        (
            ["jobs", "--state", "don"],
            "luna-farm jobs: --state: don is not allowed (did you mean done?); allowed",
        ),
        (["save", "x", "--timeout", "-1"], "--timeout: -1 is not allowed; allowed: 0 to 31536000."),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_command_and_what_is_near(arguments, told, cli):
    code, out, err = cli(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_a_field_that_the_farm_refuses_has_the_name_that_it_has_on_the_command_line(monkeypatch, cli):
    def refuse(args, config):
        raise InvalidRequest.of("index", 9, "0 to 3, the images of job a1b2c3d4")

    monkeypatch.setattr("luna_farm.cli.jobs.run", refuse)
    code, _, err = cli("cancel", "a1b2c3d4", "--image", "9")
    assert (code, err) == (2, "--image: 9 is not allowed; allowed: 0 to 3, the images of job a1b2c3d4.\n")


def test_options_are_not_abbreviated(cli):
    assert cli("start", "--det")[0] == 2


def test_version(cli):
    assert cli("--version")[1].startswith("luna-farm 0.")


def test_settings_of_the_command_line_and_the_named_file_arrive(monkeypatch, tmp_path, cli):
    seen = []
    monkeypatch.setattr("luna_farm.cli.jobs.run", lambda args, config: seen.append(config) or 0)
    (tmp_path / "my.toml").write_text("[pool]\nmin_workers = 3\n")
    assert cli("jobs", "--port", "1234", "--config", tmp_path / "my.toml")[0] == 0
    assert (seen[0].port, seen[0].min_workers) == (1234, 3)


def test_a_client_command_may_name_a_farm_elsewhere_and_start_may_not(monkeypatch, cli):
    monkeypatch.setattr("luna_farm.cli.jobs.run", lambda args, config: 0)
    assert cli("jobs", "--host", "farm.example")[0] == 0
    code, _, err = cli("start", "--host", "farm.example")
    assert code == 2
    assert err.startswith("host: 'farm.example' is not allowed")


def test_only_the_module_of_the_named_command_is_loaded(monkeypatch):
    loaded = []
    plain = types.SimpleNamespace(add_parser=lambda subparsers: None, run=None)
    monkeypatch.setattr("importlib.import_module", lambda name: loaded.append(name) or plain)
    entry.parser_for(["status", "--json"])
    entry.parser_for(["--help"])
    assert loaded[0] == "luna_farm.cli.status"
    assert len(loaded) == 1 + len(set(entry.COMMANDS.values()))


def plain_environment():
    """Without coverage, which loads modules and writes at the end."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def test_the_parsers_load_nothing_heavy():
    heavy = ["numpy", "PIL", "rich", "psutil", "asyncio", "msgpack", "websockets", "torch", "multiprocessing"]
    code = (
        "import sys; from luna_farm.cli import entry; entry.parser_for([]).format_help();"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain_environment()
    )
    assert done.stdout.strip() == "[]"


def test_a_reader_who_has_enough_is_no_error():
    code = "import sys; from luna_farm.cli.entry import main; sys.exit(main(['start', '--help']))"
    # A pipe whose reader is gone from the beginning.
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=plain_environment()) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert told == b""
    assert process.returncode == 0


def test_a_name_that_the_terminal_cannot_show_does_not_stop_a_command() -> None:
    script = (
        "from luna_farm.cli import entry, jobs\n"
        "jobs.run = lambda args, config: print('caf\\xe9 \\U0001f431') or 0\n"
        "raise SystemExit(entry.main(['jobs']))"
    )
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environ, timeout=60)
    assert (ran.returncode, ran.stdout.strip()) == (0, b"caf\\xe9 \\U0001f431")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["jobs"], "`luna-farm start`"),
        (["jobs", "--port", "7"], "`luna-farm start --port 7`"),
        (["save", "a.png", "--state-dir=/a b"], "`luna-farm start --state-dir '/a b'`"),
        (["start", "--port", "7", "--state-dir", "/x"], "`luna-farm start --state-dir /x`"),
        (["jobs", "--port"], "`luna-farm start --port ''`"),
        (["dashboard", "--port", "7"], "`luna-farm start --port 7`"),
    ],
)
def test_a_command_that_is_recommended_names_the_farm_that_was_spoken_to(
    arguments: list[str], named: str
) -> None:
    text = "Luna Farm is not there. Start one with `luna-farm start`; luna-farm-x is another program."
    assert options.for_this_farm(text, arguments) == text.replace("`luna-farm start`", named)


def test_a_command_that_names_a_farm_already_stays_and_every_command_is_known() -> None:
    text = "Type `luna-farm logs --port 9`."
    assert options.for_this_farm(text, ["jobs", "--port", "7"]) == text
    without_farm = {"config", "completion", "nodes", "bench", "service", "catalogue"}
    for name in entry.COMMANDS.keys() - without_farm:
        assert "--port 7" in options.for_this_farm(f"`luna-farm {name}`", ["jobs", "--port", "7"]), name


def test_ctrl_c_while_modules_are_loaded_is_no_traceback(monkeypatch, capsys):
    class Interrupts:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "luna_farm.cli.entry":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "luna_farm.cli.entry")
    monkeypatch.setattr(sys, "meta_path", [Interrupts, *sys.meta_path])
    assert program.main() == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_an_option_with_a_list_may_be_given_several_times():
    for words, paths in (
        (["--allowed-dirs", "/a", "--allowed-dirs=/b"], ("/a", "/b")),
        (["--allowed-dirs", os.pathsep.join(("/a", "/b"))], ("/a", "/b")),
        (["--catalogue-fields", "scores", "--catalogue-fields", "prompt"], ()),
    ):
        given = options.given(entry.parser_for(["start"]).parse_args(["start", *words]))
        found = config.load(given, {}, None, serving=False)
        assert found.allowed_dirs == tuple(Path(path).absolute() for path in paths)
    assert found.catalogue_fields == ("prompt", "scores")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["job"], "ID is missing."),
        (["config"], "action is missing; allowed: init."),
        (["nodes"], "action and COMFYUI_DIR are missing; allowed: install."),
        (["start", "--port"], "--port needs a value."),
        (["status", "--json=1"], "--json takes no value, and '1' was given."),
        (["stop", "--now", "--drain"], "--drain and --now exclude each other."),
        (["export"], "one of --csv --jsonl --parquet is missing."),
        (["--port", "5", "status"], "options stand behind the command: luna-farm status --port."),
        (["--json"], "options stand behind the command: luna-farm COMMAND --json."),
    ],
)
def test_wrong_usage_is_said_in_plain_words(words, said, cli):
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: a shell closes streams by number")
@pytest.mark.parametrize("closed", ["<&- >&-", "2>&-"])
def test_a_closed_stream_is_no_error(closed, tmp_path):
    command = f'exec "{sys.executable}" -m luna_farm completion bash {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in closed.split())
    command = f'exec "{sys.executable}" -m luna_farm completion nope {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, ""), "nothing for standard error goes to standard output"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="NOT TESTED: a full disk needs Linux")
def test_a_full_disk_behind_standard_output_is_named(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "luna_farm", "completion", "fish"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Cannot use the standard output: No space left on device (ENOSPC). Free some"
    )


@pytest.mark.parametrize("typed", ["\udce6\udc97\udca5", "caf\udce9", "日本"])
def test_words_are_what_was_typed_whatever_the_locale(typed):
    """Bytes of UTF-8 that the locale C took for something else, and bytes that are no UTF-8."""
    args = entry.parser_for(["find"]).parse_args(["find", typed])
    assert args.words == [os.fsencode(typed).decode("utf-8", "replace")]
    args = entry.parser_for(["job"]).parse_args(["job", typed])
    args.job_id.encode()
    args = entry.parser_for(["save"]).parse_args(["save", typed, "--save-path", typed, "--dpi", "3"])
    assert args.files == [typed], "a path stays what the system calls it"
    args.save_path.encode()
