"""`luna-farm export`: rows of the catalogue as CSV, JSON lines or Parquet. It must never leave half a file
behind."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from typing import IO

from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.core.counted import counted
from luna_farm.errors import NotPossible
from luna_farm.system import disk_error

COLUMNS = tuple(row.name for row in fields(CatalogueRow))
_ROWS = 10_000
"""Rows of one group of a Parquet file."""


def run(args: argparse.Namespace, rows: Iterator[CatalogueRow]) -> int:
    """Write rows. Returns the exit code."""
    if args.parquet:
        with _replaced(args.parquet) as beside:
            count = _parquet(rows, beside)
        print(f"Wrote {counted(count, 'row')} to {args.parquet}.", file=sys.stderr)
        return 0
    write = _csv if args.csv else _jsonl
    target = args.csv or args.jsonl
    if target == "-":
        write(rows, sys.stdout)
        return 0
    with _replaced(target) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        count = write(rows, file)
    print(f"Wrote {counted(count, 'row')} to {target}.", file=sys.stderr)
    return 0


def _csv(rows: Iterator[CatalogueRow], file: IO[str]) -> int:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        count += 1
        values = row.to_map().values()
        writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, tuple) else v for v in values])
    return count


def _jsonl(rows: Iterator[CatalogueRow], file: IO[str]) -> int:
    count = 0
    for row in rows:
        count += 1
        file.write(json.dumps(row.to_map(), ensure_ascii=False) + "\n")
    return count


def _parquet(rows: Iterator[CatalogueRow], path: str) -> int:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise NotPossible('--parquet needs pyarrow: pip install "luna-farm[parquet]".') from None
    kinds = {
        "str": arrow.string(),
        "int": arrow.int64(),
        "float": arrow.float64(),
        "bool": arrow.bool_(),
        "tuple[str, ...]": arrow.list_(arrow.string()),
    }
    # ComfyUI's seeds have 64 bits without a sign, others have one.
    schema = arrow.schema(
        [
            (
                row.name,
                arrow.decimal128(20, 0) if row.name == "seed" else kinds[str(row.type).partition(" |")[0]],
            )
            for row in fields(CatalogueRow)
        ]
    )
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, _ROWS)):
            writer.write_table(arrow.Table.from_pylist([row.to_map() for row in group], schema=schema))
            count += len(group)
    return count


@contextlib.contextmanager
def _replaced(path: str) -> Iterator[str]:
    """Give the name of a file beside `path`, which takes its place once all is written."""
    beside = f"{path}.new"
    try:
        yield beside
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError) and error.filename in (beside, None):
            raise disk_error("write", path, error) from error  # the name that was given
        raise
