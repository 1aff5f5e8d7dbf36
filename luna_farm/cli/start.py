"""`luna-farm start`: run the farm here, or detached. It must never start a second one beside the first."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import sys
from typing import TYPE_CHECKING

from luna_farm import DOCUMENTATION
from luna_farm.cli import options
from luna_farm.config import FEED_OFF, Config, in_url
from luna_farm.config_settings import SETTINGS
from luna_farm.errors import FarmError

if TYPE_CHECKING:
    from luna_farm.cli.launch import Launched

_EXAMPLES = """
luna-farm start                                  in this terminal, Ctrl-C stops it
luna-farm start --detach                         in the background, until luna-farm stop
luna-farm start --max-workers 8 --output-dir ~/images
luna-farm start --engine auto                    slow formats go to the Ray cluster of this machine's node
luna-farm start --log-format json                one JSON object a line, for a log collector
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "start", "start the farm", _EXAMPLES)
    parser.add_argument(
        "--detach", action="store_true", help="go to the background; returns when the port answers"
    )
    parser.add_argument(
        "--log-format",
        choices=("auto", "human", "json"),
        default="auto",
        help="how log lines look; auto: human on a terminal, JSON elsewhere",
    )
    # Set by the process that detached this one: its standard error is not read, the log file has everything.
    parser.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
    names = [
        setting.name for setting in SETTINGS if not setting.secret and setting.name not in options.COMMON
    ]
    options.add_settings(parser.add_argument_group(f"settings ({DOCUMENTATION}configuration/)"), names)


def run(args: argparse.Namespace, config: Config) -> int:
    """Run the farm until it is to stop, or start one in the background. Returns the exit code."""
    if args.detach:
        return _detach(args, config)
    from luna_farm import logs, system
    from luna_farm.supervisor import state_dir
    from luna_farm.supervisor.run import run as run_farm

    state_dir.secure(config.state_dir)  # before the log is written there
    as_json = {"auto": None, "human": False, "json": True}[args.log_format]
    logs.setup(config, as_json, stream=None if args.background else sys.stderr)
    try:
        return run_farm(config)
    except OSError as error:
        why = system.why_not_listening(error)
        if error.filename is not None or why is None:
            raise
        raise FarmError(_taken(config, error, why)) from error
    finally:
        logs.close()


def _detach(args: argparse.Namespace, config: Config) -> int:
    from luna_farm.cli.launch import LaunchFailed, launch

    arguments = [argument for argument in args.arguments[1:] if argument != "--detach"]
    farm = None
    try:
        farm = launch(arguments, config.state_dir)
        _print_started(args, config, farm)
    except LaunchFailed as error:
        print(error, file=sys.stderr)
        return error.exit_code or 1
    except KeyboardInterrupt:
        if farm is None:
            raise
        _print_started(args, config, farm)  # it runs, and that must be said
    with contextlib.suppress(KeyboardInterrupt):
        for note in _notes(config):
            print(f"Note: {note}", file=sys.stderr)
    return 0


def _print_started(args: argparse.Namespace, config: Config, farm: Launched) -> None:
    from luna_farm import logs

    print(f"Luna Farm runs in the background, process {farm.pid}.")
    host = in_url(farm.host)
    print(f"  jobs       {host}:{farm.port}")
    if farm.feed_port:
        scheme = "https" if config.tls_cert else "http"
        print(f"  dashboard  {scheme}://{host}:{farm.feed_port}/")
    print(f"  log        {config.state_dir / logs.FILE_NAME}")
    print(f"  stop it    {options.for_this_farm('luna-farm stop', args.arguments)}")


def _notes(config: Config) -> list[str]:
    """What the new farm has to say: a dashboard port that is taken, less memory than was asked for."""
    from luna_farm.cli.farm import connect

    try:
        with connect(dataclasses.replace(config, given=frozenset())) as farm:
            return [str(note) for note in farm.status()["notes"]]
    except FarmError:  # it runs; what else there is to know is in its log
        return []


def _taken(config: Config, error: OSError, why: str) -> str:
    """Return a sentence on a port that cannot be had, with the process that holds it, if the system says."""
    wanted = {config.port, config.feed_port} - {0, FEED_OFF}
    if error.errno != errno.EADDRINUSE:
        return f"Cannot listen on {config.host}, port {config.port}: {why}; choose another --host or --port."
    for port in sorted(wanted):
        holder = _holder(port)
        if holder:
            return f"Port {port} is taken by {holder}; stop that, or choose another --port or --feed-port."
    ports = " or ".join(map(str, sorted(wanted)))
    return f"Port {ports} is taken by another program; choose another --port or --feed-port."


def _holder(port: int) -> str:
    """Return the process that listens on a port, "" if the system does not say."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and getattr(connection.laddr, "port", 0) == port and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""
