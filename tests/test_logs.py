"""Logs: the contract's lines, JSON, the file, and what must never appear."""

from __future__ import annotations

import io
import json
import logging
import queue

import pytest

from luna_farm import config, log_lines, log_writer, logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def settings(tmp_path):
    return config.load({"state_dir": tmp_path / "state"}, {}, None)


@pytest.fixture(autouse=True)
def _quiet_afterwards(monkeypatch):
    monkeypatch.setattr(log_lines, "_secrets", set())
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield
    logs.close()
    logging.getLogger("luna_farm").propagate = True
    logging.raiseExceptions = True


def written(settings, *, json=None, terminal=False, write):
    out = Terminal() if terminal else io.StringIO()
    logs.setup(settings, json, stream=out)
    write(logging.getLogger("luna_farm.any"))
    logs.close()
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    "text", ["3 images submitted", "Starting save operation", "Saved to outputs/m/a.png"]
)
@pytest.mark.parametrize("named", ["", "Job a1b2c3d4: "])
def test_job_lines_are_those_of_the_contract(text, named, settings):
    def write(log):
        log.info("%s%s", named, text, extra={"job_id": "a1b2c3d4"})

    assert written(settings, terminal=True, write=write) == [f"[Image Save] Job a1b2c3d4: {text}"]


def test_lines_of_no_job_say_who_speaks(settings):
    assert written(settings, terminal=True, write=lambda log: log.info("hello")) == ["[Luna Farm] hello"]


def test_elsewhere_a_line_is_a_json_object_with_the_job(settings):
    extra = {"job_id": "a1b2c3d4", "event": "image_saved"}
    (line,) = written(settings, write=lambda log: log.info("Saved to %s", "ü.png", extra=extra))
    entry = json.loads(line)
    assert entry["job_id"] == "a1b2c3d4"
    assert entry["event"] == "image_saved"
    assert entry["message"] == "Saved to ü.png"
    assert entry["level"] == "info"
    assert entry["timestamp"].endswith("+00:00")
    assert line.isascii()


def test_json_can_be_asked_for_on_a_terminal_and_human_lines_elsewhere(settings):
    assert written(settings, json=True, terminal=True, write=lambda log: log.info("a"))[0].startswith("{")
    assert written(settings, json=False, write=lambda log: log.info("a")) == ["[Luna Farm] a"]


def test_levels_are_configured(settings, tmp_path):
    loud = config.load({"state_dir": tmp_path, "log_level": "error"}, {}, None)
    assert written(loud, terminal=True, write=lambda log: log.warning("a")) == []
    assert written(settings, terminal=True, write=lambda log: log.debug("a")) == []


def test_warnings_say_so_and_are_coloured_unless_told_otherwise(settings, monkeypatch):
    assert written(settings, terminal=True, write=lambda log: log.warning("a")) == [
        "\033[33m[Luna Farm] WARNING: a\033[0m"
    ]
    monkeypatch.setenv("NO_COLOR", "1")
    assert written(settings, terminal=True, write=lambda log: log.warning("a")) == ["[Luna Farm] WARNING: a"]


def test_the_file_is_json_private_and_rotates(settings, monkeypatch):
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    written(settings, terminal=True, write=lambda log: [log.info("line %d", number) for number in range(100)])
    file = settings.state_dir / logs.FILE_NAME
    assert json.loads(file.read_text().splitlines()[-1])["message"] == "line 99"
    assert file.stat().st_mode & 0o077 == 0
    assert len(list(settings.state_dir.glob("luna-farm.log*"))) == logs.FILES_KEPT + 1


def test_without_a_stream_only_the_file_is_written(settings):
    logs.setup(settings)
    logging.getLogger("luna_farm").info("a")
    logs.close()
    assert json.loads((settings.state_dir / logs.FILE_NAME).read_text())["message"] == "a"


def test_a_short_secret_does_not_make_words_unreadable():
    log_lines.hide("luna")
    line = log_lines.HumanLines(colour=False).format(
        logging.LogRecord("luna_farm", logging.INFO, "", 0, "s3://luna refuses", None, None)
    )
    assert line == "[Luna Farm] s3://luna refuses"


@pytest.mark.parametrize("terminal", [True, False])
def test_secrets_never_appear_in_message_extra_or_traceback(settings, terminal):
    log_lines.hide("tok-123")
    log_lines.hide("")

    def write(log):
        log.info("the token is %s", "tok-123", extra={"given": "tok-123"})
        try:
            raise ValueError("bad tok-123")
        except ValueError:
            log.exception("failed with tok-123")

    text = "\n".join(written(settings, terminal=terminal, write=write))
    file = (settings.state_dir / logs.FILE_NAME).read_text()
    assert "tok-123" not in text + file
    assert "***" in text
    assert "ValueError" in text


def test_the_configured_token_is_hidden_without_being_named(tmp_path):
    settings = config.load({"state_dir": tmp_path}, {"LUNA_FARM_TOKEN": "sesame"}, None)
    assert written(settings, terminal=True, write=lambda log: log.info("sesame")) == ["[Luna Farm] ***"]


def test_a_name_cannot_forge_a_line(settings):
    lines = written(
        settings, terminal=True, write=lambda log: log.info("a\n[Image Save] Job x: Saved\033[2J")
    )
    assert lines == ["[Luna Farm] a\\n[Image Save] Job x: Saved\\x1b[2J"]


def test_when_the_writer_is_far_behind_lines_are_dropped_and_counted():
    lines = queue.Queue(2)
    handler = logs._Queued(lines)
    record = logging.makeLogRecord({"msg": "a"})
    for _ in range(5):
        handler.emit(record)
    lines.get()
    lines.get()
    handler.emit(record)
    assert lines.get().getMessage() == "3 log lines were dropped"
    assert lines.get() is record


def test_a_closed_terminal_does_not_disturb(settings, capsys):
    out = Terminal()
    logs.setup(settings, stream=out)
    out.close()
    logging.getLogger("luna_farm").info("into the void")
    logs.close()
    assert capsys.readouterr().err == ""
    assert "into the void" in (settings.state_dir / logs.FILE_NAME).read_text()


def test_setting_up_twice_writes_once(settings):
    out = Terminal()
    logs.setup(settings, stream=out)
    logs.setup(settings, stream=out)
    logging.getLogger("luna_farm").info("once")
    logs.close()
    assert out.getvalue() == "[Luna Farm] once\n"


def test_what_is_said_over_and_over_is_counted_instead(settings, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    only = logs._Repeats(lambda: clock[0])
    log = logging.getLogger("luna_farm.any")

    def passes(level, text, *args):
        record = log.makeRecord(log.name, level, "", 0, text, args, None)
        return record.getMessage() if only.filter(record) else None

    said = [passes(logging.ERROR, "no file %d", n) for n in range(1000)]
    assert [text for text in said if text] == [f"no file {n}" for n in range(logs.WARNINGS_REPEATED)]
    assert passes(logging.ERROR, "something else") == "something else"
    clock[0] = logs.REPEATS_S
    assert passes(logging.ERROR, "no file %d", 7) == "no file 7 (980 more lines like this were left out)"
    assert passes(logging.ERROR, "no file %d", 8) == "no file 8"
    for kind in range(2 * logs.KINDS):
        assert passes(logging.ERROR, f"kind {kind}") is not None
    assert len(only._seen) <= logs.KINDS


def test_lines_about_jobs_are_never_left_out(settings):
    def write(log):
        for n in range(500):
            log.handle(log_lines.JobLine(log.name, logging.INFO, "saved", f"{n:08x}"))

    assert len(written(settings, write=write)) == 500


def test_what_the_event_loop_says_goes_into_the_log(settings):
    (line,) = written(settings, write=lambda _: logging.getLogger("asyncio").error("out of files"))
    assert json.loads(line)["message"] == "out of files"


class Unspeakable:
    def __str__(self):
        raise KeyError("no words")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_that_breaks_the_writing_thread_costs_only_itself(settings, terminal):
    def write(log):
        log.info("first")
        log.info("%s", Unspeakable())
        log.info("third")

    lines = written(settings, terminal=terminal, write=write)
    assert [line.count("first") + 3 * line.count("third") for line in lines] == [1, 3]
    kept = (settings.state_dir / logs.FILE_NAME).read_text().splitlines()
    assert [json.loads(line)["message"] for line in kept] == ["first", "third"]


def test_a_file_that_cannot_be_renamed_keeps_the_lines_behind_it(settings, monkeypatch):
    monkeypatch.setattr(logs, "FILE_BYTES", 1000)
    monkeypatch.setattr(log_writer, "TOGETHER", 1)
    refused = []

    def rollover(self):
        refused.append(self)
        raise PermissionError("in use, as on Windows")

    monkeypatch.setattr(log_writer.StateFile, "doRollover", rollover)
    written(settings, write=lambda log: [log.info("line %d", number) for number in range(20)])
    kept = (settings.state_dir / logs.FILE_NAME).read_text().splitlines()
    assert refused
    assert json.loads(kept[-1])["message"] == "line 19"


def test_a_file_that_was_removed_is_written_anew(settings):
    logs.setup(settings, stream=None)
    log = logging.getLogger("luna_farm.any")
    log.info("before")
    logs.close()
    logs.setup(settings, stream=None)
    (settings.state_dir / logs.FILE_NAME).unlink()
    logs.reopen()
    log.info("after")
    logs.close()
    assert json.loads((settings.state_dir / logs.FILE_NAME).read_text())["message"] == "after"
