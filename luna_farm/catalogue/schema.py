"""The tables of the catalogue, and how its file is opened.

`images` holds what is filtered by and is narrow, so that a scan of a million rows reads little; `texts`
holds the rest of a row; `words` is an index of texts that stores none. Folders, models and negative
prompts, which repeat, are numbered.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from luna_farm.catalogue.rows import NAME as NAME
from luna_farm.catalogue.words import TOKENIZER
from luna_farm.storage.sqlite import write_ahead

VERSION = 2
"""Kept in the file. One of another version is set aside and made again: it is derived data."""
BUSY_MS = 10_000
"""How long a connection waits for another that writes (a rebuild beside a running farm)."""
PHASH_PARTS = tuple(f"((phash >> {shift}) & 65535)" for shift in (0, 16, 32, 48))
"""The four parts of a perceptual hash, by which near duplicates are found."""
_PHASH_INDEXES = "".join(
    f"CREATE INDEX IF NOT EXISTS images_phash_{n} ON images ({part}) WHERE phash IS NOT NULL;\n"
    for n, part in enumerate(PHASH_PARTS)
)
DDL = f"""
CREATE TABLE IF NOT EXISTS folders (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS models (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS negatives (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY, state INTEGER NOT NULL, folder INTEGER NOT NULL, real_folder INTEGER,
    name TEXT NOT NULL, job_id TEXT, number INTEGER, format TEXT, width INTEGER, height INTEGER,
    bytes INTEGER, crc32 INTEGER, submitted_at REAL, ms REAL, affix TEXT, model INTEGER, sampler TEXT,
    scheduler TEXT, steps INTEGER, cfg REAL, seed, gate_score REAL, gate_threshold REAL, variance REAL,
    edge_density REAL, clipped REAL, blank INTEGER, nan_count INTEGER, phash INTEGER
);
CREATE TABLE IF NOT EXISTS texts (
    id INTEGER PRIMARY KEY, prompt TEXT, negative INTEGER, loras TEXT, custom TEXT, warnings TEXT, error TEXT
);
CREATE VIRTUAL TABLE IF NOT EXISTS words
USING fts5(prompt, about, content='', columnsize=0, tokenize="{TOKENIZER}");
CREATE UNIQUE INDEX IF NOT EXISTS images_place ON images (folder, name) WHERE state < 2;
CREATE INDEX IF NOT EXISTS images_job ON images (job_id, number) WHERE job_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS images_model ON images (model) WHERE model IS NOT NULL;
CREATE INDEX IF NOT EXISTS images_seed ON images (seed) WHERE seed IS NOT NULL;
{_PHASH_INDEXES}CREATE INDEX IF NOT EXISTS images_failed ON images (state) WHERE state >= 2;
CREATE INDEX IF NOT EXISTS images_blank ON images (blank) WHERE blank = 1;
CREATE INDEX IF NOT EXISTS images_nan ON images (nan_count) WHERE nan_count > 0;
PRAGMA user_version = {VERSION};
"""
PASSING = ("locked", "busy", "full", "readonly", "unable to open", "disk i/o")
"""Parts of messages of sqlite3 that blame the disk or another program, not the file."""


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is no catalogue of this version, whole: another try will not
    help."""
    text = str(error).lower()
    return not any(part in text for part in PASSING)


def writing(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open the file for the one writer, and make it if it is not there. Raises sqlite3.Error, and
    sqlite3.DatabaseError for a file of another version."""
    # Readable for this user only, as the rest of the state folder.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
    connection = sqlite3.connect(os.fspath(path), isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        write_ahead(connection, BUSY_MS / 1000)
        # A power cut may take the last rows, never the file: they are added again from the reports.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -8192")
        if not _is_ready(connection):  # another process may be about to make the tables, too
            connection.executescript(f"BEGIN IMMEDIATE;{DDL}COMMIT;")
        connection.execute("SELECT max(id) FROM images").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _is_ready(connection: sqlite3.Connection) -> bool:
    """Whether the file has its tables. Raises sqlite3.DatabaseError for a file of another version."""
    # In this order: once the tables that another process makes are there, its version is, too.
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not tables and version in (0, VERSION):
        return False
    if version != VERSION:
        raise sqlite3.DatabaseError(f"it is of version {version}, this program needs version {VERSION}")
    return True


def reading(path: str | os.PathLike[str]) -> sqlite3.Connection | None:
    """Open the file to read it, whether a farm runs or not; None while it is being made. Raises
    sqlite3.Error."""
    connection = sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        if not _is_ready(connection):
            connection.close()
            return None
    except BaseException:
        connection.close()
        raise
    return connection
