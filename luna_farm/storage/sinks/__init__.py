"""Destinations beyond the output folder: one kind a file, behind the interface of `sink.py`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from luna_farm.core.filenames import with_number
from luna_farm.locations import SCHEMES, Location
from luna_farm.storage.sinks.sink import Decision, Sink, SinkError, Stored, Upload

RECENT = 32
"""Numbers below the first free one that may hold an upload whose answer was lost."""


_found: set[str] = set()
"""Modules that are installed: looking for one takes 0.2 ms, which no hand-over should wait for."""


def missing_extra(scheme: str) -> str:
    """Return the sentence that says what to install for a scheme, "" if all is there."""
    kind = SCHEMES[scheme]
    absent = [name for name in kind.modules if name not in _found and importlib.util.find_spec(name) is None]
    _found.update(set(kind.modules) - set(absent))
    if not absent:
        return ""
    return (
        f"{scheme}:// needs the Python package {' and '.join(absent)}, which is not installed where the farm"
        f" runs; install it with: pip install 'luna-farm[{kind.extra}]'"
    )


def open_sink(place: Location | str, options: Mapping[str, Any]) -> Sink:
    """Return the sink of a place; nothing is connected yet. Raises SinkError without the extra."""
    if isinstance(place, str):
        from luna_farm.storage.sinks.folder import FolderSink

        return FolderSink(place)
    absent = missing_extra(place.scheme)
    if absent:
        raise SinkError(absent, Decision.HOLD, "extra")
    if place.scheme in ("s3", "gs", "az"):
        from luna_farm.storage.sinks.objects import ObjectSink

        return ObjectSink(place, options)
    from luna_farm.storage.sinks.files import FileSink

    if place.scheme == "sftp":
        from luna_farm.storage.sinks.sftp import SftpServer

        return FileSink(SftpServer(place, options))
    if place.scheme in ("ftp", "ftps"):
        from luna_farm.storage.sinks.ftp import FtpServer

        return FileSink(FtpServer(place, options))
    from luna_farm.storage.sinks.webdav import WebdavServer

    return FileSink(WebdavServer(place, options))


def send(sink: Sink, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
    """Store an object under `key` or the first free number behind it.

    A long row of taken numbers costs a logarithm of looks: steps double, then halve. With `again` the numbers
    below the free one are looked at, for an earlier try may have reached them. Raises SinkError.
    """
    number = 0
    while True:
        try:
            return sink.put(with_number(key, number) if number else key, upload, body, again=again)
        except SinkError as error:
            if error.decision is not Decision.NEXT_NUMBER:
                raise
        number = _free_number(sink, key, number)
        for earlier in range(number - 1, max(0, number - 1 - RECENT), -1) if again else ():
            found = sink.own(with_number(key, earlier), upload)
            if found is not None:
                return found


def _free_number(sink: Sink, key: str, taken: int) -> int:
    """Return a number behind `taken` that was free a moment ago."""
    low, step = taken, 1
    while sink.exists(with_number(key, low + step)):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if sink.exists(with_number(key, middle)):
            low = middle
        else:
            high = middle
    return high
