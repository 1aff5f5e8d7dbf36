"""`luna-farm jobs`, `job`, `retry`, `cancel` and `dismiss`: what became of what was handed over.

It must never change a job unless the command says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from luna_farm.cli import options, terminal
from luna_farm.config import Config
from luna_farm.core.counted import counted
from luna_farm.errors import NotPossible, UnknownJob

if TYPE_CHECKING:
    from luna_farm_client import FarmClient, JobReport

_JOBS = """
luna-farm jobs                the last 20 jobs, newest first
luna-farm jobs --limit 500 --json
luna-farm jobs --state failed
"""
_JOB = """
luna-farm job a1b2c3d4           every image of the job: state, file, size, times, score
luna-farm job a1b2c3d4 --wait    wait until it is finished; exit code 1 unless it is done
"""
_RETRY = """
luna-farm retry a1b2c3d4              try the failed images of the job again, and wait for them
luna-farm retry a1b2c3d4 --image 2    only this one
"""
_CANCEL = """
luna-farm cancel a1b2c3d4              images that wait, for a worker or a destination, are not saved
luna-farm cancel a1b2c3d4 0f0f0f0f     of several jobs
luna-farm cancel a1b2c3d4 --image 2    only this image
"""
_DISMISS = """
luna-farm dismiss a1b2c3d4              give up what could not be saved, and remove its dead letters (pixels)
luna-farm dismiss a1b2c3d4 --image 2    only this one
"""
MOST_LISTED = 10_000
"""What a farm answers at once."""
UNSAVED = ("failed", "lost", "missing")
STATES = ("queued", "running", "done", "failed", "cancelled", "lost")
_STYLES = {
    "done": "green",
    "saved": "green",
    "failed": "red",
    "lost": "red",
    "running": "cyan",
    "held": "yellow",
}


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the five commands."""
    jobs = options.command(subparsers, "jobs", "list the latest jobs", _JOBS)
    jobs.add_argument(
        "--limit", type=options.whole(1, MOST_LISTED), default=20, metavar="N", help="how many at most"
    )
    jobs.add_argument("--state", choices=STATES, help="only jobs in this state")
    job = options.command(subparsers, "job", "show one job", _JOB)
    job.add_argument("--wait", action="store_true", help="until it is finished")
    retry = options.command(subparsers, "retry", "try failed images of a job again", _RETRY)
    retry.add_argument("--no-wait", action="store_true", help="return at once")
    cancel = options.command(
        subparsers, "cancel", "cancel the images of jobs that are not saved yet", _CANCEL
    )
    dismiss = options.command(subparsers, "dismiss", "give up images that could not be saved", _DISMISS)
    for parser in (cancel, dismiss):
        parser.add_argument(
            "job_ids", nargs="+", type=options.text, metavar="ID", help="ids of the jobs, such as a1b2c3d4"
        )
    for parser in (retry, cancel, dismiss):
        parser.add_argument(
            "--image", type=options.whole(0, 10**5), metavar="N", help="only this image of the job, from 0"
        )
    for parser in (job, retry):
        parser.add_argument("job_id", type=options.text, metavar="ID", help="id of the job, such as a1b2c3d4")
        parser.add_argument(
            "--timeout", type=options.SECONDS, metavar="SECONDS", help="wait this long at most"
        )
    for parser in (jobs, job, retry, cancel, dismiss):
        parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run one of the five. Returns the exit code: 0, or 1 if a job that was waited for is not done, or one
    could not be cancelled."""
    from luna_farm.cli.farm import connect

    with connect(config) as farm:
        if args.command == "jobs":
            return _list(farm, args)
        if args.command in ("cancel", "dismiss"):
            return _give_up(farm, args)
        if args.command == "retry":
            report = farm.retry(args.job_id, args.image)
            wait = not args.no_wait
        else:
            report = farm.job(args.job_id)
            wait = args.wait
        if wait and not report.finished:
            try:
                report = farm.wait(args.job_id, timeout=args.timeout)
            except KeyboardInterrupt:
                print(f"Not waiting any more: job {args.job_id} goes on in the farm.", file=sys.stderr)
                return 130
    _show(report, as_json=args.json)
    if wait:
        return 0 if report.state == "done" else 1
    return 0


def _give_up(farm: FarmClient, args: argparse.Namespace) -> int:
    """Cancel or dismiss each job; one where that is not possible does not keep the others from it."""
    problems, done = 0, []
    give_up = farm.cancel if args.command == "cancel" else farm.dismiss
    for job_id in args.job_ids:
        try:
            before = farm.job(job_id) if args.command == "dismiss" else None
            done.append((before, give_up(job_id, args.image)))
        except (UnknownJob, NotPossible) as error:
            print(options.for_this_farm(str(error), args.arguments), file=sys.stderr)
            problems += 1
    if args.json:
        terminal.print_json([as_map(report) for _, report in done])
    else:
        for before, report in done:
            print(f"Job {report.job_id}: {counted_states(report, before)}.")
    return 1 if problems else 0


def counted_states(report: JobReport, before: JobReport | None = None) -> str:
    """Say how many images are in which state, such as "3 cancelled, 1 saved". `before`: the report before
    images were dismissed."""
    states = Counter(image.state for image in report.images)
    for old, new in zip(before.images if before else (), report.images, strict=False):
        if old.state in UNSAVED and new.state not in UNSAVED:
            states[new.state] -= 1
            states["dismissed"] += 1
    states = +states
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def _list(farm: FarmClient, args: argparse.Namespace) -> int:
    # A state is looked for among all jobs that are kept.
    found = farm.jobs(limit=MOST_LISTED if args.state else min(args.limit + 1, MOST_LISTED))
    reports = [report for report in found if args.state in (None, report.state)]
    if len(reports) > args.limit:
        reports = reports[: args.limit]
        if not args.json:
            print(f"There are more than {counted(args.limit, 'job')}; --limit shows them.", file=sys.stderr)
    if args.json:
        terminal.print_json([as_map(report) for report in reports])
        return 0
    if not reports:
        print("No jobs.")
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("job", "state", "images", "size", "submitted", "first file"):
        table.add_column(name, justify="right" if name in ("images", "size") else "left", overflow="fold")
    for report in reports:
        first = report.images[0].path if report.images else ""
        written = sum(image.bytes for image in report.images)
        state = Text(report.state, style=_STYLES.get(report.state, ""))
        images = str(len(report.images))
        table.add_row(report.job_id, state, images, terminal.size(written), report.timestamp[:19], first)
    terminal.console().print(table)
    return 0


def _show(report: JobReport, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(as_map(report))
        return
    from rich.table import Table
    from rich.text import Text

    console = terminal.console()
    console.print(Text.assemble(f"Job {report.job_id}: ", (report.state, _STYLES.get(report.state, ""))))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("image", "state", "size", "encode", "write", "score", "file"):
        table.add_column(name, justify="left" if name in ("state", "file") else "right", overflow="fold")
    for image in report.images:
        score = "" if image.score is None else f"{image.score:.2f}"
        times = [f"{image.ms[name]:.1f} ms" if name in image.ms else "" for name in ("encode", "write")]
        state = Text(image.state, style=_STYLES.get(image.state, ""))
        table.add_row(str(image.index), state, terminal.size(image.bytes), *times, score, image.path)
    console.print(table)
    for style, numbers, text in _remarks(report):
        console.print(Text(f"{numbers}: {text}", style=style))
    for warning in report.warnings:
        console.print(Text(warning, style="yellow"))


def _remarks(report: JobReport) -> Iterator[tuple[str, str, str]]:
    """Yield style, images and text of each error and warning: one line for images in a row that have the
    same one."""
    told = [("red", image.index, image.error) for image in report.images if image.error]
    told += [
        ("yellow", image.index, at["error"])
        for image in report.images
        for at in image.outputs
        if image.state == "uploading" and at["error"]
    ]
    told += [("yellow", image.index, text) for image in report.images for text in image.warnings]
    at = 0
    while at < len(told):
        style, first, text = told[at]
        at += 1
        last = first
        while at < len(told) and told[at] == (style, last + 1, text):
            at, last = at + 1, last + 1
        yield style, f"image {first}" if first == last else f"images {first} to {last}", text


def as_map(report: JobReport) -> dict[str, Any]:
    """Return a report as plain values."""
    images = [{**dataclasses.asdict(image), "ms": dict(image.ms)} for image in report.images]
    return {**dataclasses.asdict(dataclasses.replace(report, images=())), "images": images}
