"""From arguments to an exit code: find the command, read the settings, run it, put errors into sentences.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no farm there (130 after Ctrl-C, as shells have it). This file
must stay cheap to import: every start of the program pays for it, and every spawned worker again.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from luna_farm import DOCUMENTATION, __version__, config
from luna_farm.cli import options
from luna_farm.errors import ConfigError, FarmError, FarmUnavailable, InvalidRequest

DONE, FAILED, WRONG_USAGE, NO_FARM, INTERRUPTED = 0, 1, 2, 3, 130

# Command -> module; in the order of the help.
COMMANDS = {
    "start": "start",
    "stop": "stop",
    "status": "status",
    "jobs": "jobs",
    "job": "jobs",
    "retry": "jobs",
    "cancel": "jobs",
    "dismiss": "jobs",
    "pause": "pause",
    "resume": "pause",
    "open": "open",
    "dashboard": "open",
    "save": "save",
    "find": "catalogue",
    "export": "catalogue",
    "catalogue": "catalogue",
    "bench": "bench",
    "logs": "logs",
    "doctor": "doctor",
    "config": "config",
    "service": "service",
    "completion": "completion",
    "nodes": "nodes",
}

OF_NO_FARM = ("config", "completion", "nodes")
"""Commands that read no settings, so that a broken settings file does not stand in their way."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv` is without the program's name. Returns the exit code."""
    _replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that the terminal's encoding does not have
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        try:
            return _run(arguments)
        finally:
            # A reader that is gone must show here, not when the interpreter ends.
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("Stopped.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) has closed the pipe; Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except FarmUnavailable as error:
        return _fail(options.for_this_farm(str(error), arguments), NO_FARM)
    except ConfigError as error:
        return _fail(options.for_this_farm(str(error), arguments), WRONG_USAGE)
    except InvalidRequest as error:
        # A value that is not allowed is wrong usage, wherever it is noticed; a file that is no image is not.
        code = FAILED if error.field == "FILE" else WRONG_USAGE
        return _fail(options.for_this_farm(str(error), arguments), code)
    except FarmError as error:
        return _fail(options.for_this_farm(str(error), arguments), FAILED)
    except OSError as error:
        return _fail(_about_file(error), FAILED)
    except Exception as error:
        if os.environ.get("LUNA_FARM_LOG_LEVEL", "").lower() == "debug":
            raise
        kind = type(error).__name__
        hint = "this is a bug, LUNA_FARM_LOG_LEVEL=debug shows where"
        return _fail(f"Unexpected {kind}: {error} ({hint}).", FAILED)


def _run(arguments: list[str]) -> int:
    parser = parser_for(arguments)
    first = next(iter(arguments), "")
    if first.startswith("-") and first not in ("-h", "--help", "--version"):
        named = next((word for word in arguments if word in COMMANDS), "COMMAND")
        parser.error(f"options stand behind the command: luna-farm {named} {first}")
    args, unknown = parser.parse_known_args(arguments)
    of_command: options.Parser = args.parser or parser
    if unknown:
        of_command.unknown(unknown)
    if args.command is None:
        parser.print_help()
        return WRONG_USAGE
    args.arguments = arguments
    if args.command in OF_NO_FARM:
        settings = config.load({}, {}, None, serving=False)
    else:
        file = Path(args.config) if args.config else config.find_file(os.environ, Path.cwd())
        settings = config.load(options.given(args), os.environ, file, serving=args.command == "start")
    try:
        code: int = args.run(args, settings)
    except InvalidRequest as error:
        raise of_command.named(error) from error
    return code


def parser_for(arguments: Sequence[str]) -> options.Parser:
    """Return the parser: with the one command that `arguments` names, with all if it names none."""
    parser = options.Parser(
        prog="luna-farm",
        description="Saves images in the background while your program goes on.",
        epilog=f"luna-farm COMMAND --help says more, with examples. Documentation: {DOCUMENTATION}",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"luna-farm {__version__}")
    parser.set_defaults(run=None, config=None, parser=None)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    named = arguments[0] if arguments and arguments[0] in COMMANDS else None
    modules = [COMMANDS[named]] if named else dict.fromkeys(COMMANDS.values())
    for name in modules:
        module = importlib.import_module(f"luna_farm.cli.{name}")
        known = set(subparsers.choices)
        module.add_parser(subparsers)
        for command in set(subparsers.choices) - known:
            of_command = subparsers.choices[command]
            if command not in OF_NO_FARM:
                options.add_common(of_command)
            of_command.set_defaults(run=module.run, parser=of_command)
    return parser


def _about_file(error: OSError) -> str:
    """Return the sentence for a file that cannot be used."""
    from luna_farm import system

    name = error.filename
    if not name and error.errno == errno.ENOSPC:  # every other file is named
        name = "the standard output"
    if not name:
        return f"{error.strerror or error}."
    if error.errno == errno.ENOENT:
        return f"{name} does not exist."
    return str(system.disk_error("use", name, error))


def _replace_closed_streams() -> None:
    """Let nothing that is opened later take the number of a standard stream that is closed, and nothing for
    standard error go to standard output."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(number)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115  for as long as we live
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _fail(text: str, code: int) -> int:
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[31m{text}\033[0m" if colour else text, file=sys.stderr)
    return code
