"""`luna-farm save FILE...`: hand images and arrays over to the farm and wait until they are saved.

What a file says of itself (colour profile, resolution, EXIF, XMP, texts) goes along. One file is one job, so
that a bad one fails alone; with --archive they share an open shard. This module must never hold more than one
decoded file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luna_farm import DOCUMENTATION
from luna_farm.cli import options, terminal
from luna_farm.cli.jobs import as_map
from luna_farm.cli.saving import Saving
from luna_farm.config import Config
from luna_farm.core import formats, outputs
from luna_farm.core.messages import FORMAT_NAMES
from luna_farm.core.options import OPTIONS
from luna_farm.errors import FarmError, FarmUnavailable, InvalidRequest

if TYPE_CHECKING:
    from luna_farm.imaging.source_formats import Source
    from luna_farm_client import FarmClient, JobReport, SaveRequest

_EXAMPLES = """
luna-farm save a.tif b.bmp                       as PNG, into the farm's output folder
luna-farm save *.png --format webp --lossless-webp --output-dir web
luna-farm save frames.npy --filename frame       [B,H,W,C] makes frame_0.png, frame_1.png ...
luna-farm save *.png --archive zip               one file with all of them, and a .json for each
luna-farm save a.gif --format webp --animation   one moving image; without it a_0.webp, a_1.webp ...
luna-farm save a.png --save-path '%date:yyyy-MM-dd%' --filename 'shot_%counter%'
"""


HOW = tuple(
    name
    for name, option in OPTIONS.items()
    if not option.is_document and name not in ("save_path", "filename", "icc_profile", "model_dirs")
)
"""The save options that files have no better source for; the others are arguments of their own."""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(
        subparsers, "save", "save image files and .npy arrays through the farm", _EXAMPLES
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="image, or .npy with uint8 or float 0..1 values"
    )
    names = parser.add_argument_group("where")
    names.add_argument("--output-dir", metavar="DIR", help="folder of this machine (default: the farm's)")
    names.add_argument(
        "--save-path",
        default="",
        type=options.text,
        metavar="PATH",
        help=f"folders below it; tokens: {DOCUMENTATION}names/",
    )
    names.add_argument(
        "--filename",
        type=options.text,
        metavar="NAME",
        help="name without ending, tokens too (default: FILE's)",
    )
    names.add_argument("--affix", default="", type=options.text, help="appended to the name")
    how = parser.add_argument_group("how")
    how.add_argument("--format", type=_format, choices=tuple(formats.FORMATS), default="png")
    for name in HOW:
        options.save_option(how, OPTIONS[name])
    how.add_argument(
        "--animation",
        action="store_true",
        help="a moving image stays one, at its own speed (png, webp, avif); else its frames are a batch",
    )
    parser.add_argument(
        "--timeout", type=options.SECONDS, metavar="SECONDS", help="wait this long at most for all of it"
    )
    parser.add_argument("--no-wait", action="store_true", help="return once all is accepted")
    parser.add_argument("--json", action="store_true", help="the reports as JSON")


def run(args: argparse.Namespace, config: Config) -> int:
    """Save every file. Returns the exit code: 1 if any of them was not saved, 130 after Ctrl-C."""
    from luna_farm.cli.farm import connect

    with connect(config) as farm:
        _check_formats(farm, args)
        saving = Saving(farm, args.files, args.timeout, args.arguments)
        shown, task = terminal.progress("Saving", len(args.files))
        try:
            with shown:
                _save(saving, args, lambda done: shown.update(task, completed=done))
            if args.archive != "none":
                _wait_for_archives(farm, saving.reports)
        except KeyboardInterrupt:
            return saving.interrupted()
        except FarmUnavailable as error:
            raise FarmUnavailable(f"{error} {saving.not_sent()}".strip(), error.host, error.port) from error
    _print(saving.accepted, saving.reports, as_json=args.json)
    problems = saving.problems + [
        f"{image.path}: {image.error or image.state}" for r in saving.reports for image in _unsaved(r)
    ]
    for warning in dict.fromkeys((*saving.told, *saving.warned, *_warnings(saving.reports))):
        print(f"Warning: {warning}", file=sys.stderr)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _check_formats(farm: FarmClient, args: argparse.Namespace) -> None:
    """Raise InvalidRequest for a format whose library the farm lacks, before anything is read: images in it
    could only be set aside."""
    option, wanted = "--format", [args.format]
    if args.outputs:
        option, wanted = "--outputs", [output.format for output in outputs.checked(args.outputs)]
    if not any(formats.FORMATS[name].module for name in wanted):
        return
    missing = farm.status().get("missing_formats", {})
    for name in wanted:
        if name in missing:
            allowed = f"a format that the farm can write; on its machine: {missing[name]}"
            raise InvalidRequest.of(option, name, allowed)


def _format(text: str) -> str:
    """Return the format that a name stands for, in any case: JPG is jpeg."""
    return FORMAT_NAMES.get(text.lower(), text)


def _save(saving: Saving, args: argparse.Namespace, show: Callable[[int], None]) -> None:
    from luna_farm.imaging import source as sources  # numpy and Pillow: the other commands do without

    for name in args.files:
        try:
            found = sources.read(Path(name))
            if not formats.FORMATS[args.format].icc:
                sources.to_srgb(found)
            if found.linear and args.colorspace == "srgb" and not _holds_floats(args):
                sources.to_display(found)
            saving.told += [f"{name}: {text}" for text in found.warnings]
            saving.submit(name, _request(found, name, args))
        except FarmUnavailable:
            raise
        except FarmError as error:
            if isinstance(error, InvalidRequest):
                if not saving.accepted and _was_given(args, error.field):
                    raise  # of the command line, so it is the same for every file
                error = args.parser.named(error)
            of_file = isinstance(error, InvalidRequest) and error.field == "FILE"  # begins with its name
            saving.problems.append(str(error) if of_file else f"{name}: {error}")
        saving.left.pop(0)
        # Reports of what is finished meanwhile, so that the display moves while files are still read.
        if not args.no_wait:
            saving.collect()
        show(len(saving.accepted) if args.no_wait else len(saving.reports))
    while not args.no_wait and saving.wait():
        show(len(saving.reports))


def _was_given(args: argparse.Namespace, field: str) -> bool:
    """Whether a field of the request comes from the command line."""
    default = args.parser.get_default(field)
    return bool(getattr(args, field, default) != default)


ARCHIVE_IDLE_S = 10.0
"""A shared archive is published so long after its last image, if some of its images never came."""


def _wait_for_archives(farm: FarmClient, reports: Iterable[JobReport]) -> None:
    """Wait until the archives that hold the images have their names."""
    paths = {path for report in reports for path in report.paths}
    until = time.monotonic() + 2 * ARCHIVE_IDLE_S
    while time.monotonic() < until:
        left = [row for row in farm.status()["archives"] if row["path"] in paths and not row["error"]]
        if not left:
            return
        time.sleep(0.05)


def _warnings(reports: Iterable[JobReport]) -> list[str]:
    """Return what the farm has to say about files that it saved."""
    found = [warning for report in reports for warning in report.warnings]
    found += [f"{image.path}: {text}" for r in reports for image in r.images for text in image.warnings]
    return list(dict.fromkeys(found))


def _holds_floats(args: argparse.Namespace) -> bool:
    """Whether the files are to hold floats, and so linear light as it comes."""
    return args.format == "exr" or (args.format == "tiff" and args.bit_depth in ("half", "float"))


def _request(found: Source, name: str, args: argparse.Namespace) -> SaveRequest:
    """Return the request for a file, with all that it says of itself. Its frames are a batch, or one moving
    image; pages that differ in size or depth are images of their own, numbered as a batch is."""
    from luna_farm_client import SaveImage, SaveRequest

    how = {option: getattr(args, option) for option in HOW} | {"dpi": args.dpi or found.dpi}
    if args.colorspace == "srgb":
        how["colorspace"] = "linear" if found.linear else found.colorspace
    if args.animation and found.fps and not how["animation_fps"]:
        how |= {"animation_fps": found.fps, "animation_loop": how["animation_loop"] or found.loop}
        how["animation_ms"] = how["animation_ms"] or found.lasts
    # A name that was not asked for is no template: its percent signs are just that.
    filename, affix = args.filename, args.affix
    own = options.text(Path(name).stem).replace("%", "_")  # in the locale C, names have bytes in them
    if args.archive != "none":  # the filename is that of the archive
        filename, affix = filename or "images", affix or own
        if not (args.shard_images or args.shard_bytes or args.shard_idle_s):
            how |= {"shard_images": len(args.files), "shard_idle_s": ARCHIVE_IDLE_S}
    affixes = [affix]
    if len(found.pages) > 1:
        digits = how["batch_digits"] or len(str(len(found.pages) - 1))
        affixes = [f"{affix}_{number:0{digits}d}".lstrip("_") for number in range(len(found.pages))]
    return SaveRequest(
        images=[
            SaveImage(pixels, affix=affix, format=args.format)
            for pixels, affix in zip(found.pages, affixes, strict=True)
        ],
        output_dir=args.output_dir,
        save_path=args.save_path,
        filename=filename if filename is not None else own,
        texts=found.texts,
        exif=found.exif,
        xmp=found.xmp,
        icc_profile=found.icc,
        **how,
    )


def _unsaved(report: JobReport) -> list[Any]:
    return [image for image in report.images if image.state not in ("saved", "discarded", "dropped")]


def _print(accepted: list[tuple[str, str]], reports: list[JobReport], *, as_json: bool) -> None:
    if as_json:
        jobs: list[dict[str, Any]] = [{"file": name, "job_id": job_id} for name, job_id in accepted]
        for job, report in zip(jobs, reports, strict=False):  # without waiting there are no reports
            job |= as_map(report)
        terminal.print_json(jobs)
        return
    if not reports:
        for name, job_id in accepted:
            print(f"{name}: job {job_id}")
    for report in reports:
        for image in report.images:
            if image.state in ("saved", "discarded", "dropped"):
                what = "" if image.state == "saved" else " (exists already)"
                if what and image.score is not None:
                    what = f" ({image.state} by the quality gate, {image.score:.2f})"
                took = sum(image.ms.values())
                where = f"{image.path}: {image.member}" if image.member else image.path
                print(f"{where}  {terminal.size(image.bytes)}  {took:.0f} ms{what}")
