"""How SQLite files that several processes write are opened: with a write-ahead log, so that readers and one
writer do not wait for one another."""

from __future__ import annotations

import sqlite3
import time

TRY_EVERY_S = 0.01


def write_ahead(connection: sqlite3.Connection, patience_s: float) -> None:
    """Have the file of a connection keep a write-ahead log. Raises sqlite3.Error.

    The switch needs the file alone, and SQLite does not wait for that: its busy timeout has no effect here
    (of three processes that open a new file at once, one failed in every tenth try). So this tries again,
    for at most `patience_s` seconds.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until:
                raise
        time.sleep(TRY_EVERY_S)
