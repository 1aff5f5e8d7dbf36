"""`luna-farm service install | uninstall | status | logs`: a farm that starts when you log in.

It must never change more than its own file and its own service.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from luna_farm.cli import options, service_files
from luna_farm.cli.service_files import Service
from luna_farm.config import Config
from luna_farm.config_settings import ENV_PREFIX
from luna_farm.errors import FarmError

_EXAMPLES = """
luna-farm service install              start it now, and whenever you log in
luna-farm service install --print      only show the file and the commands
luna-farm service status               what the system says of it
luna-farm service logs                 the last lines of its log
luna-farm service uninstall            stop it, and start it no more
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "service", "have the farm start when you log in", _EXAMPLES)
    parser.add_argument("action", choices=["install", "uninstall", "status", "logs"], help="what to do")
    parser.add_argument("--print", action="store_true", help="show the file and the commands, change nothing")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run the command. Returns the exit code: 1 where the system refuses, or knows no such service."""
    service = find(start_command(args))
    if args.action == "logs":
        from luna_farm.cli import entry

        where = ["--state-dir", str(config.state_dir)]
        return entry.main(["logs", *where])
    if args.print:
        return _show(service, args.action)
    if args.action == "install":
        return _install(service)
    if args.action == "uninstall":
        return _uninstall(service)
    return _status(service)


def start_command(args: argparse.Namespace, command: str = "start") -> list[str]:
    """Return the command line that starts this farm, independent of folder and PATH."""
    python = Path(sys.executable)
    windowless = python.with_name("pythonw.exe")
    named = (("--state-dir", args.setting_state_dir), ("--config", args.config))
    words = [word for option, value in named if value for word in (option, os.path.abspath(value))]
    for option, value in (("--host", args.setting_host), ("--port", args.setting_port)):
        words += [option, value] if value else []
    program = str(windowless if command == "start" and windowless.is_file() else python)
    return [program, "-m", "luna_farm", command, *words]


def find(start: Sequence[str]) -> Service:
    """Return the service of this platform."""
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", str(Path.home())))
        user = f"{os.environ.get('USERDOMAIN', '')}\\{os.environ.get('USERNAME', '')}".lstrip("\\")
        stop = [word if word != "start" else "stop" for word in start]
        return service_files.windows(start, local, user, stop)
    if sys.platform == "darwin":
        return service_files.launchd(start, Path.home(), os.getuid())
    return service_files.systemd(start, Path.home())


def _show(service: Service, action: str) -> int:
    commands = {"install": service.install, "uninstall": service.uninstall, "status": (service.status,)}
    if action == "install":
        print(f"# {service.path}")
        encoding = "utf-16" if service.content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
        print(service.content.decode(encoding))
    for command in commands[action]:
        print("# " + subprocess.list2cmdline(command))
    return 0


def _install(service: Service) -> int:
    path = Path(service.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(service.content)
    for command in service.install:
        _call(command, f"{path} is written, but the service does not run")
    print(f"The farm runs now and starts when you log in ({path}).")
    left = sorted(name for name in os.environ if name.startswith(ENV_PREFIX))
    if left:
        print(
            f"It does not see {', '.join(left)} of this shell: write such settings into a file"
            " (luna-farm config init).",
            file=sys.stderr,
        )
    if service.hint:
        print(service.hint)
    return 0


def _uninstall(service: Service) -> int:
    path = Path(service.path)
    if not path.exists():
        raise FarmError(f"No service is installed: there is no {path}.")
    problems = []
    for command in service.uninstall:
        try:
            _call(command, "The service could not be stopped")
        except FarmError as error:  # it was not running, or is gone already: the file goes all the same
            problems.append(str(error))
    path.unlink()
    for problem in problems:
        print(problem, file=sys.stderr)
    print("The farm starts no more when you log in.")
    return 0


def _status(service: Service) -> int:
    path = Path(service.path)
    if not path.exists():
        print(f"No service is installed: there is no {path}. Install it with luna-farm service install.")
        return 1
    print(f"Installed: {path}", flush=True)
    try:
        return min(1, subprocess.run(service.status, check=False).returncode)  # noqa: S603  our own words
    except OSError as error:
        raise FarmError(f"{service.status[0]} cannot be run: {error.strerror}.") from error


def _call(command: Sequence[str], failed: str) -> None:
    """Run a command of the system. Raises FarmError with what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own words
    except OSError as error:
        raise FarmError(f"{failed}: {command[0]} cannot be run ({error.strerror}).") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise FarmError(f"{failed}: {' '.join(command)}: {said[-1] if said else done.returncode}")
