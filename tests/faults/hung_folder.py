"""A folder on a server that never answers, as a dead network folder is."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest


class Hung:
    """A FUSE file system whose server is this process, which never reads a request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        if sys.platform != "linux" or os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK):
            pytest.skip("NOT TESTED: a folder that hangs needs Linux, root and FUSE")
        self._server = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._server},rootmode=40000,user_id=0,group_id=0"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"luna", os.fsencode(folder), b"fuse", 0, options.encode()):
            os.close(self._server)
            pytest.skip(f"NOT TESTED: this machine does not let its root mount: {ctypes.get_errno()}")

    def let_go(self) -> None:
        """The server is gone, and so is the folder's hold on those who wait for it."""
        if self._server >= 0:
            os.close(self._server)
            self._server = -1
            subprocess.run(["umount", "-l", self.folder], check=False, capture_output=True)
