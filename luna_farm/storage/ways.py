"""How a file gets its name, and what each error of a file system means on the way there.

`DECISIONS` is the one table of that: system call -> errno -> what follows. An error that it does not name has
the decision under OTHER. Sources of the facts: the manual pages of Linux, and what FUSE file systems, network
folders and sandboxes were seen to return. This module only decides; `writer.py` acts.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import Enum, IntEnum

from luna_farm.system import NO_SYNC
from luna_farm.system_files import WALK_INSTEAD


class Way(IntEnum):
    """How a file gets its name, the best way first. None of them replaces a file.

    UNNAMED: a file without a name is linked, so that a crash leaves nothing (O_TMPFILE, Linux). LINK: a
    temporary file is linked and its temporary name removed. RENAME: it is renamed by a call that replaces
    nothing (exFAT, FAT, many network folders). CLAIM: an empty file of our own takes the name, and the
    rename replaces that one; for an instant, or until the next start if the process dies in it, the file of
    that name is empty (FUSE file systems without links). Where a rename replaces nothing at all, the empty
    file is removed first (SFTP servers).
    """

    UNNAMED = 0
    LINK = 1
    RENAME = 2
    CLAIM = 3


class Then(Enum):
    """What follows from an error."""

    HOLD = "the image waits, is written anew later, and the report says why"
    NEXT_WAY = "the next way to give a name is tried"
    FREE = "the name is free"
    NEXT_NUMBER = "the name gets the next free number"
    ANEW = "what a crash left under the temporary name is removed, and the file made again"
    NO_SYNC = "the file system has no sync; it is taken at its word"
    TRY_EMPTY = "the file system has no sync if an empty file cannot be synced either; else the image waits"
    MAKE = "the folder is made"
    WALK = "the folders are opened one by one"
    GO_ON = "nothing depends on it"


_NO_RIGHT = (errno.EACCES, errno.EPERM)
_REFUSED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, getattr(errno, "ESTALE", errno.ENOSPC)),
)
"""Errors that say that this file or disk is refused now, whatever call said so."""

OTHER = 0

DECISIONS: Mapping[str, Mapping[int, Then]] = {
    "open folder": {errno.ENOENT: Then.MAKE, OTHER: Then.HOLD},
    "openat2": {
        **dict.fromkeys(WALK_INSTEAD, Then.WALK),
        OTHER: Then.HOLD,
    },
    "mkdir": {errno.EEXIST: Then.GO_ON, OTHER: Then.HOLD},
    # File systems report a missing O_TMPFILE as EOPNOTSUPP, EISDIR, EINVAL or ENOENT.
    "open unnamed": {**dict.fromkeys(_REFUSED, Then.HOLD), OTHER: Then.NEXT_WAY},
    "open": {errno.EEXIST: Then.ANEW, OTHER: Then.HOLD},
    "write": {OTHER: Then.HOLD},
    # Part of the identity of a file, which is read back: any time will do.
    "utimens": {OTHER: Then.GO_ON},
    # EIO, ENOSPC and so on: what was written did not reach the disk. EACCES and EPERM can mean the same (NFS,
    # once the rights of a user have run out), or that a FUSE file system refuses the call as such.
    "fsync": {
        **dict.fromkeys(NO_SYNC, Then.NO_SYNC),
        **dict.fromkeys(_NO_RIGHT, Then.TRY_EMPTY),
        OTHER: Then.HOLD,
    },
    # Some network folders report a full disk only here: asked before the file has its name.
    "close": {OTHER: Then.HOLD},
    "stat": {errno.ENOENT: Then.FREE, OTHER: Then.HOLD},
    # A missing link() is reported as EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EINVAL, EACCES, EXDEV, EIO or ENOTTY,
    # by sandboxes that cannot link an open file as ENOENT.
    "link": {
        errno.EEXIST: Then.NEXT_NUMBER,
        **dict.fromkeys(_REFUSED, Then.HOLD),
        OTHER: Then.NEXT_WAY,
    },
    "rename to a free name": {
        errno.EEXIST: Then.NEXT_NUMBER,
        **dict.fromkeys(_REFUSED, Then.HOLD),
        OTHER: Then.NEXT_WAY,
    },
    # SFTP servers without a rename that replaces say EPERM, others EEXIST.
    "rename over an empty file": {
        **dict.fromkeys((*NO_SYNC, *_NO_RIGHT, errno.EEXIST, errno.ENOTEMPTY), Then.NEXT_WAY),
        OTHER: Then.HOLD,
    },
    "rename": {errno.EEXIST: Then.NEXT_NUMBER, OTHER: Then.HOLD},
    # Nothing that was written waits behind a folder whose sync is not permitted: no kernel says so of a
    # failure.
    "fsync folder": {**dict.fromkeys((*NO_SYNC, *_NO_RIGHT), Then.NO_SYNC), OTHER: Then.HOLD},
    # Its name stays beside the image and goes at a later start.
    "unlink": {OTHER: Then.GO_ON},
    "close at the end": {OTHER: Then.GO_ON},
    # Only shown, in the status and on the dashboard.
    "statvfs": {OTHER: Then.GO_ON},
}


def then(call: str, error: OSError) -> Then:
    """Return what follows from an error of a call of `DECISIONS`."""
    decisions = DECISIONS[call]
    return decisions.get(error.errno or OTHER, decisions[OTHER])
