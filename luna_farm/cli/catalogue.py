"""`luna-farm find`, `export` and `catalogue rebuild`: what was saved, searched and made again from the files.

They read the catalogue's file in the state folder, whether a farm runs or not; only a farm that is named
(--host, --port) is asked. They must never change an image file.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luna_farm.catalogue.rows import NAME, CatalogueRow
from luna_farm.cli import options, terminal
from luna_farm.cli.since import since
from luna_farm.config import Config, is_loopback
from luna_farm.core.counted import counted
from luna_farm.errors import CatalogueUnavailable, FarmUnavailable, NotPossible
from luna_farm.locations import is_url

if TYPE_CHECKING:
    from rich.text import Text

_FIND = """
luna-farm find                               the latest images
luna-farm find harbour night                 both words, in prompt, model, LoRAs, name or metadata
luna-farm find '"golden hour" port* -rain'   a phrase, the beginning of a word, a word that must not occur
luna-farm find --model flux --since 2d       of the last two days
luna-farm find --score blank                 all of one colour; also variance<0.1, clipped>0.5, nan, gate>=0.5
luna-farm find --similar shot.png            near duplicates of an image, the most alike first
luna-farm find --seed 42 --open              open the newest one
luna-farm find --failed --job 1f3a92bc       what a job could not save, and why
"""
_EXPORT = """
luna-farm export --csv images.csv
luna-farm export --jsonl --since 7d | jq .prompt
luna-farm export --parquet images.parquet harbour
"""
_CATALOGUE = """
luna-farm catalogue rebuild output                     read every image below a folder again
luna-farm catalogue rebuild output /mnt/nas --pixels   and compute scores, for --score and --similar
"""
_PAGE = 1000
MOST_FOUND = 10_000
_PROMPT = 200
"""Characters of a prompt that are shown."""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the three commands."""
    find = options.command(subparsers, "find", "find saved images", _FIND)
    find.add_argument(
        "--limit", type=options.whole(1, MOST_FOUND), default=20, metavar="N", help="how many at most"
    )
    find.add_argument("--json", action="store_true", help="as JSON")
    find.add_argument("--open", action="store_true", help="open the first one in the program for images")
    export = options.command(subparsers, "export", "write the rows of saved images to a table", _EXPORT)
    kinds = export.add_mutually_exclusive_group(required=True)
    for kind in ("csv", "jsonl"):
        kinds.add_argument(
            f"--{kind}", nargs="?", const="-", metavar="FILE", help="without FILE to standard output"
        )
    kinds.add_argument("--parquet", metavar="FILE", help="needs pyarrow: pip install 'luna-farm[parquet]'")
    for parser in (find, export):
        _add_filters(parser)
        parser.of_no_option = " (a word that must not occur goes into quotes with others: 'harbour -rain')"
    catalogue = options.command(
        subparsers, "catalogue", "make the catalogue again from image files", _CATALOGUE
    )
    catalogue.add_argument("action", choices=("rebuild",), help="read files again")
    catalogue.add_argument("folders", nargs="+", metavar="DIR", help="folders with images")
    catalogue.add_argument(
        "--pixels",
        action="store_true",
        help="also decode the images, for scores, perceptual hash and checksum: files do not hold them"
        " (about 50 images a second for each core)",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which images")
    group.add_argument(
        "words", nargs="*", type=options.text, metavar="WORD", help="words that must all occur"
    )
    group.add_argument(
        "--model", default="", type=options.text, metavar="NAME", help="a part of the name of the model"
    )
    group.add_argument(
        "--seed", type=options.whole(-(2**63), 2**64 - 1), metavar="N", help="exactly this seed"
    )
    group.add_argument("--since", type=since, metavar="TIME", help="such as 2h, 3d, 1w, 2026-05-04")
    group.add_argument(
        "--score", default="", type=options.text, metavar="CONDITION", help="such as variance<0.1 or blank"
    )
    group.add_argument("--similar", metavar="FILE", help="near duplicates of an image")
    group.add_argument("--job", default="", type=options.text, metavar="JOB", help="images of this job")
    group.add_argument("--failed", action="store_true", help="images that failed instead of saved ones")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run one of the three. Returns the exit code."""
    if args.command == "catalogue":
        return _rebuild(args, config)
    if args.command == "export":
        from luna_farm.cli import export

        table = _begun(_all(args, config))
        _remark(args)
        return export.run(args, table)
    rows = _found(args, config, min(args.limit + 1, MOST_FOUND))
    more, rows = len(rows) > args.limit, rows[: args.limit]
    _remark(args)
    if args.open:
        return _open(rows, config)
    if args.json:
        terminal.print_json([row.to_map() for row in rows])
    elif not rows:
        print("Nothing found.")
    else:
        console = terminal.console()
        for row in rows:
            console.print(_shown(row), soft_wrap=True)
    if more and not args.json:
        found = f"There are more than {counted(args.limit, 'image')}"
        print(f"{found}; --limit shows them, more words narrow them down.", file=sys.stderr)
    return 0


def _remark(args: argparse.Namespace) -> None:
    """Say what is not looked for as it was typed."""
    from luna_farm.catalogue import words

    told = words.remarks(" ".join(args.words))
    if args.since is not None and args.since > time.time():
        told.append("--since is a time in the future, so nothing can be found.")
    for sentence in told:
        print(sentence, file=sys.stderr)


def _begun(rows: Iterator[CatalogueRow]) -> Iterator[CatalogueRow]:
    """Look for the first row now: where there is no catalogue, nothing of a table is written."""
    first = next(rows, None)
    return itertools.chain(() if first is None else (first,), rows)


def _filters(args: argparse.Namespace) -> dict[str, Any]:
    similar = ""
    if args.similar:
        from luna_farm.catalogue.pixels import phash_of

        similar = phash_of(args.similar)
    return {
        "words": " ".join(args.words),
        "model": args.model,
        "seed": args.seed,
        "since": args.since,
        "score": args.score,
        "similar": similar,
        "job": args.job,
        "failed": args.failed,
    }


def _found(
    args: argparse.Namespace, config: Config, limit: int, before: int | None = None
) -> list[CatalogueRow]:
    """Return rows, from the file, or from the farm that is named. Raises CatalogueUnavailable."""
    filters = _filters(args)
    from luna_farm.catalogue.search import Catalogue

    catalogue = Catalogue(config.state_dir / NAME)
    if {"host", "port"} & config.given:
        from luna_farm.cli.farm import connect

        try:
            with connect(config) as farm:
                return farm.find(**filters, limit=limit, before=before)
        except FarmUnavailable:
            if not (is_loopback(config.host) and catalogue.exists):
                raise
    if not catalogue.exists:
        from luna_farm.supervisor.state_dir import unreadable

        if why := unreadable(config.state_dir):
            raise CatalogueUnavailable(why, catalogue.path)
        raise CatalogueUnavailable(
            f"There is no catalogue in {config.state_dir}: no farm has saved an image with this state"
            " folder. `luna-farm catalogue rebuild DIR` makes one from image files.",
            catalogue.path,
        )
    try:
        return catalogue.search(**filters, limit=limit, before=before)
    finally:
        catalogue.close()


def _all(args: argparse.Namespace, config: Config) -> Iterator[CatalogueRow]:
    """Yield all rows that match, in pages."""
    before: int | None = None
    while page := _found(args, config, _PAGE, before):
        yield from page
        if len(page) < _PAGE or args.similar:
            return
        before = page[-1].id


def _open(rows: list[CatalogueRow], config: Config) -> int:
    from luna_farm import system_desktop

    if not rows:
        print("Nothing found.", file=sys.stderr)
        return 1
    path = rows[0].path
    if not is_loopback(config.host):
        raise NotPossible(f"The files of this farm are on {config.host}, not here: {path}")
    print(path)
    if is_url(path):
        if system_desktop.open_address(path):
            return 0
        raise NotPossible(
            f"It cannot be opened: {system_desktop.missing() or 'no browser could be started'}."
        )
    system_desktop.open_path(Path(path))
    return 0


def _shown(row: CatalogueRow) -> Text:
    """Return what a person sees of a row: facts, prompt, and the path on a line of its own."""
    from rich.text import Text

    from luna_farm.catalogue.files import is_gone

    gone = row.state != "failed" and is_gone(row.path)
    state = "" if row.state == "saved" else row.state
    seed = "" if row.seed is None else f"seed {row.seed}"
    facts = (terminal.moment(row.saved_at), f"{row.width}x{row.height}", row.model, seed, state)
    prompt = " ".join(row.prompt.split())
    lines = [
        Text("  ".join(filter(None, facts)), style="bold"),
        Text(f"    {prompt if len(prompt) <= _PROMPT else prompt[: _PROMPT - 3] + '...'}")
        if prompt
        else None,
        Text(f"    {row.error}", style="red") if row.error else None,
        Text(f"    {row.path}{' (gone)' if gone else ''}", style="dim" if gone else "cyan"),
    ]
    return Text("\n").join(line for line in lines if line is not None)


def _rebuild(args: argparse.Namespace, config: Config) -> int:
    """Read files again. Returns the exit code."""
    from luna_farm.catalogue import rebuild
    from luna_farm.catalogue.store import Store
    from luna_farm.supervisor.state_dir import secure

    secure(config.state_dir)
    folders = [os.path.abspath(os.path.expanduser(folder)) for folder in args.folders]
    for folder in folders:
        os.scandir(folder).close()  # before anything is written; its OSError says what is wrong
    path = config.state_dir / NAME
    shown, task = terminal.progress("images", None)
    try:
        store = Store(path)
        if store.set_aside:
            print(store.set_aside, file=sys.stderr)
        with shown:
            done = rebuild.rebuild(
                store,
                folders,
                config.catalogue_fields,
                pixels=args.pixels,
                progress=lambda done: shown.update(task, completed=done.images),
            )
        store.close()
    except sqlite3.Error as error:
        raise CatalogueUnavailable(f"The catalogue {path} cannot be written: {error}.", str(path)) from error
    told = [f"In the catalogue: {counted(done.images, 'image')}."]
    if done.removed:
        told.append(f"Removed {counted(done.removed, 'row')} of files that are gone.")
    if done.unlisted:
        names = ", ".join(done.unlisted[: rebuild.NAMED])
        more = ", ..." if len(done.unlisted) > rebuild.NAMED else ""
        told.append(f"Folders that this user may not look into: {names}{more}.")
    if done.unreadable:
        names = ", ".join(done.unreadable_paths)
        more = ", ..." if done.unreadable > len(done.unreadable_paths) else ""
        told.append(
            f"Left out {counted(done.unreadable, 'file')} that cannot be read as images: {names}{more}."
        )
    print(*told)
    if done.unscored and not args.pixels and "scores" in config.catalogue_fields:
        print(f"Without scores, for --score and --similar: {done.unscored}; --pixels computes them.")
    return 0
