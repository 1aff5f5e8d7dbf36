"""Where files may be saved: below which folders, when the settings name some (allowed_dirs), and whether
links below an output folder are followed (follow_links).

Links are resolved before anything is compared, and what is allowed is returned as a root. Below it the
writer follows no link (with follow_links: none that leads elsewhere). A process that swaps a folder for a
link after the check gets an error, not a file elsewhere. This module must never compare paths as they were
given: `/allowed/../etc` begins like an allowed one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from luna_farm import system
from luna_farm.errors import InvalidRequest


class Allowed:
    """The allowed folders; none means any. They may be links themselves: who set them up meant that.

    `follow_links`: a link below an output folder that leads to a folder is followed, as long as it ends in an
    allowed one.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]] = (), follow_links: bool = False) -> None:
        self._named = tuple(os.fspath(folder) for folder in folders)
        self._roots = tuple(os.path.realpath(folder) for folder in self._named)
        self.follow_links = follow_links

    def holds(self, real: str) -> bool:
        """Whether a path without links lies in an allowed folder."""
        path = os.path.normcase(os.path.join(real, ""))
        roots = [os.path.normcase(os.path.join(root, "")) for root in self._roots]
        return not roots or any(path.startswith(root) for root in roots)

    def place(self, output_dir: str, field: str = "output_dir") -> tuple[str, str]:
        """Return (root, rest): the real `output_dir` is `rest` ("" or ending in "/") below `root`.

        Without allowed folders it is its own root. Raises InvalidRequest, about `field`, when it lies in none
        of them, and DiskError when its links cannot be read (a part of the path that changes meanwhile).
        """
        if not self._roots:
            return output_dir, ""
        try:
            real = os.path.join(os.path.realpath(output_dir), "")
        except OSError as error:
            raise system.disk_error("resolve the links of", output_dir, error) from error
        for root in self._roots:
            begin = os.path.join(root, "")
            if os.path.normcase(real).startswith(os.path.normcase(begin)):
                return root, real[len(begin) :].replace(os.sep, "/")
        allowed = f"a folder below {', '.join(self._named)}, links resolved (setting allowed_dirs)"
        raise InvalidRequest.of(field, output_dir, allowed)


ANYWHERE = Allowed()
"""Any folder, but no link below it."""
