"""A local or network folder as a mirror: the same bytes once more, published as every file is."""

from __future__ import annotations

import os

from luna_farm.core.filenames import with_number
from luna_farm.errors import DiskError, FarmError
from luna_farm.storage import writer
from luna_farm.storage.sinks.refusals import of_exception, refusal
from luna_farm.storage.sinks.sink import Decision, SinkError, Stored, Upload, is_body

CHUNK_BYTES = 1 << 20
RECENT = 32
"""Numbers under which an earlier try may have published the file."""


class FolderSink:
    """A folder; keys are paths below it with "/" between the parts."""

    thread_safe = True

    def __init__(self, folder: str, fsync: bool = True) -> None:
        self._folder = folder
        self._fsync = fsync

    def exists(self, key: str) -> bool:
        """Whether there is a file under `key`."""
        return os.path.lexists(self._path(key))

    def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
        """Publish the file under `key` or the next free number."""
        for number in range(RECENT) if again else ():
            earlier = with_number(key, number) if number else key
            if not self.exists(earlier):
                break
            found = self.own(earlier, upload)
            if found is not None:
                return found
        temp = f".luna-{upload.token}.tmp"
        try:
            published = writer.publish(
                self._path(key), (body,), output_dir=self._folder, temp_name=temp, fsync=self._fsync
            )
        except DiskError as error:
            raise SinkError(str(error), Decision.HOLD, "disk") from error
        except FarmError as error:
            raise SinkError(str(error), Decision.FAIL, "name") from error
        except OSError as error:
            raise refusal(self._folder, of_exception(error)) from error
        stored = os.path.relpath(published.path, self._folder).replace(os.sep, "/")
        return Stored(stored, published.bytes)

    def own(self, key: str, upload: Upload) -> Stored | None:
        """Return the file under `key` if it has the bytes of this upload."""
        try:
            with open(self._path(key), "rb") as file:
                same = is_body(upload, iter(lambda: file.read(CHUNK_BYTES), b""))
        except OSError:
            return None
        return Stored(key, upload.bytes, found=True) if same else None

    def close(self) -> None:
        """There is nothing to close."""

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, *key.split("/"))
