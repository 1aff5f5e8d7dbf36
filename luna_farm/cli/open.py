"""`luna-farm open` and `luna-farm dashboard`: show files and the dashboard on the desktop.

It must never hand the farm's token to a program: the browser gets a link that works once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from luna_farm import system_desktop
from luna_farm.cli import options
from luna_farm.config import Config, is_loopback
from luna_farm.errors import InvalidRequest, NotPossible
from luna_farm.locations import is_url

if TYPE_CHECKING:
    from luna_farm_client import FarmClient, JobReport

_OPEN = """
luna-farm open                       the folder that images go to unless a request names one
luna-farm open a1b2c3d4              the folder of this job's files
luna-farm open a1b2c3d4 --image 0    its first image, in the program for images
luna-farm open a1b2c3d4 --print      only print the path
"""
_DASHBOARD = """
luna-farm dashboard            open the dashboard in the browser, logged in
luna-farm dashboard --print    print the link instead: it works once, within a minute
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the two commands."""
    opened = options.command(subparsers, "open", "open a folder or an image on the desktop", _OPEN)
    opened.add_argument(
        "job_id", nargs="?", type=options.text, metavar="ID", help="id of the job, such as a1b2c3d4"
    )
    opened.add_argument(
        "--image", type=options.whole(0, 10**5), metavar="N", help="this image of the job, from 0"
    )
    dashboard = options.command(
        subparsers, "dashboard", "open the dashboard in the browser, logged in", _DASHBOARD
    )
    for parser, what in ((opened, "path"), (dashboard, "link")):
        parser.add_argument("--print", action="store_true", help=f"print the {what} and open nothing")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run one of the two. Returns the exit code."""
    from luna_farm.cli.farm import connect, place

    with connect(config) as farm:
        if args.command == "dashboard":
            return _dashboard(farm.dashboard_link(), only_print=args.print)
        path = _path(farm, config, args)
    if args.print:
        print(path)
        return 0
    host = place(config)[0]
    if not is_loopback(host):
        raise NotPossible(f"The files of this farm are on {host}, not here: {path}")
    system_desktop.open_path(Path(path))
    return 0


def _dashboard(link: str, *, only_print: bool) -> int:
    if only_print:
        print(link)
    elif not system_desktop.open_address(link):
        why = system_desktop.missing() or "no browser could be started"
        print(f"The browser cannot be opened: {why}. Open this link within a minute; it works once:")
        print(link)
        return 1
    else:
        print("The dashboard is open in your browser.", file=sys.stderr)
    return 0


def _path(farm: FarmClient, config: Config, args: argparse.Namespace) -> str:
    """What is to be opened. Raises UnknownJob, NotPossible."""
    if args.job_id is None:
        if args.image is not None:
            raise InvalidRequest.of(
                "--image", args.image, "with the id of a job: luna-farm open ID --image N"
            )
        return str(farm.status().get("output_dir") or config.output_dir)
    path = _file(farm.job(args.job_id), args.image)
    if is_url(path):
        raise NotPossible(f"{path} is not on this machine; its service shows it.")
    return path if args.image is not None else str(Path(path).parent)


def _file(report: JobReport, index: int | None) -> str:
    """The file of an image that is there, or the first of the job."""
    images = report.images if index is None else report.images[index : index + 1]
    for image in images:
        if image.state in ("saved", "discarded"):
            return image.path
    which = f"Job {report.job_id}" if index is None else f"Image {index} of job {report.job_id}"
    state = report.state if index is None or not images else images[0].state
    raise NotPossible(f"{which} has no file: it is {state}." if images else f"{which} does not exist.")
