"""The words that cross a process boundary: what a job asks for, what one image needs, what came of it.

Plain dataclasses that turn into msgpack maps and back. They are not changed once they are made; those of
every image are not frozen, because a frozen class takes three times as long to make. This module must never
validate what a client sent (that is `core/schema.py`) and never touch numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from luna_farm.core import formats
from luna_farm.core.formats import DTYPES
from luna_farm.core.options import FARM_DEFAULTS, SaveSettings
from luna_farm.core.outputs import Output

FORMATS = {row.name: row.extension for row in formats.TABLE}
"""Image format -> file extension."""
FORMAT_NAMES = {name: name for name in FORMATS} | {"jpg": "jpeg", "tif": "tiff"}
"""Every name of a format, in lower case -> its key of FORMATS."""
DISCARDED = "_discarded"
"""Folder of the images that the gate rejects."""

_options_of_farm = attrgetter(*FARM_DEFAULTS)

T = TypeVar("T", bound="Message")
Bytes = bytes
"""The type, in a class with a field of that name."""


class Message:
    """Base of the dataclasses below: `to_map` and `from_map` with the field names as keys."""

    __slots__ = ()

    def to_map(self) -> dict[str, Any]:
        """Return the fields as a map of plain values."""
        names, read, _, _ = _FIELDS.get(type(self)) or _fields_of(type(self))
        return dict(zip(names, read(self), strict=True))

    def brief_map(self) -> dict[str, Any]:
        """Return a map without the fields that are empty, as they are by default. `from_map` of this version
        and later ones takes it; other defaults stand in it, because they may change."""
        names, read, empty, _ = _FIELDS.get(type(self)) or _fields_of(type(self))
        rows = zip(names, read(self), empty, strict=True)
        return {name: value for name, value, default in rows if value is not default}

    def values(self) -> tuple[Any, ...]:
        """Return the values of the fields in their order, for a process of the same version."""
        return (_FIELDS.get(type(self)) or _fields_of(type(self))).read(self)

    def with_fields(self: T, **changes: Any) -> T:
        """Return a copy with some fields changed: `dataclasses.replace` in a third of the time, for the way
        of every image."""
        return type(self)(**{**self.to_map(), **changes})

    @classmethod
    def from_values(cls: type[T], given: Sequence[Any]) -> T:
        """Build from what `values` returned."""
        names, _, _, by_place = _FIELDS.get(cls) or _fields_of(cls)
        return cls(*given) if by_place else cls(**dict(zip(names, given, strict=True)))

    @classmethod
    def from_map(cls: type[T], given: Mapping[str, Any]) -> T:
        """Build from a map made by `to_map`, by this version or an older one: unknown keys are left out."""
        names = (_FIELDS.get(cls) or _fields_of(cls)).names
        return cls(**{name: given[name] for name in names if name in given})


class _Fields(NamedTuple):
    """What is known of the fields of a message class: half of what the supervisor does for an image is
    turning messages into maps."""

    names: tuple[str, ...]
    read: Callable[[Any], tuple[Any, ...]]
    """Reads all of them at once."""
    empty: tuple[Any, ...]
    """The default of each that is empty by default, of the others something that no value is."""
    by_place: bool
    """The class takes them in their order."""


_FIELDS: dict[type, _Fields] = {}
_TOLD = object()


def _fields_of(kind: type) -> _Fields:
    """Find out about the fields of a message class, once."""
    rows = fields(kind)
    names = tuple(row.name for row in rows)
    read: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
    if len(names) == 1:  # an attrgetter of one field returns no tuple

        def read(message: Any) -> tuple[Any, ...]:
            return (getattr(message, names[0]),)

    empty = tuple(_TOLD if row.default is MISSING or row.default else row.default for row in rows)
    found = _FIELDS[kind] = _Fields(names, read, empty, not any(row.kw_only for row in rows))
    return found


@dataclass(slots=True)
class SaveOptions(SaveSettings, Message):
    """What all images of one job share: the save options, where, and when. JSON documents are texts here: the
    farm passes them on, it does not live by them. Not changed once it is made."""

    output_dir: str
    """Absolute folder below which every file of the job lies."""
    timestamp: str = ""
    """ISO 8601, one for the whole request."""
    mirrors: tuple[str, ...] = ()
    """Folders and URLs that the same bytes go to as well, under the same names."""

    def __post_init__(self) -> None:
        if None in _options_of_farm(self):
            for name, default in FARM_DEFAULTS.items():
                if getattr(self, name) is None:
                    setattr(self, name, default)

    def of_output(self, output: Output) -> SaveOptions:
        """Return the options of one output of an image: these, with what it says for itself."""
        options = self
        if output.quality is not None:
            options = replace(options, lossy_quality=output.quality, lossless_webp=False)
        return options if output.level is None else replace(options, png_compression=output.level)


def temp_name(job_id: str, index: int, kind: str = "") -> str:
    """Return the temporary name of an image, or of the `kind` of file that goes with it, such as "json"."""
    return f".luna-{job_id}-{index}{kind and '-'}{kind}.tmp"


@dataclass(slots=True, unsafe_hash=True)
class Note(Message):
    """Which file was about to get which name: it shows, after a crash, whether the name was given.

    `temp` is the temporary name of the file (`temp_name`), `name` the final one, without folder. The rest is
    the identity of the file: its inode number, its size in bytes, its time of modification.
    """

    temp: str
    name: str
    inode: int
    size: int
    mtime_ns: int
    moved: bool = False
    """The name is given by a rename: it was given if the temporary name is gone."""

    @classmethod
    def of(cls, task: ImageTask, kind: str = "") -> Note | None:
        """Return what an attempt that died noted last of the file of a task, or of the `kind` of file that
        goes with it."""
        given = (task.noted or {}).get(temp_name(task.job_id, task.index, kind))
        return cls.from_map(given) if given and given["name"] else None

    def withdrawn(self) -> Note:
        """Return the note that takes its place once the file has no name for certain."""
        return replace(self, name="")

    def is_of(self, task: ImageTask) -> bool:
        """Whether it is about the file of a task, or one that goes with it."""
        stem = temp_name(task.job_id, task.index).removesuffix(".tmp")
        return self.temp.startswith((f"{stem}.", f"{stem}-"))


@dataclass(slots=True, unsafe_hash=True)
class ImageTask(Message):
    """One file to make: what a worker is handed together with the `SaveOptions` of its job.

    Pixels are of `dtype`, C-contiguous, `nbytes` bytes from `offset` in `segment`
    ("shm:NAME" or "file:PATH").
    """

    job_id: str
    index: int
    affix: str
    format: str
    batch_index: int
    batch_size: int
    path: str
    segment: str
    offset: int
    height: int
    width: int
    channels: int
    dtype: str = "uint8"
    """Of `formats.DTYPES`."""
    frames: int = 1
    """Images of the same size behind one another that become one moving image."""
    flaws: int = 0
    """Values that were NaN or infinite before they were replaced."""
    in_affix_folder: bool = False
    """The last folder of `path` is that of the affix (`subdir`); rejected images go beside it."""
    attempt: int = 1
    recovered: bool = False
    thumbnail: bool = False
    metadata: str = ""
    """JSON text of a map of generation parameters of this image, which come before those of the job."""
    root: str = ""
    """Folder below which the file must stay; "" for the output_dir of the job (a fallback folder
    otherwise)."""
    file_time_ns: int = 0
    """Time of modification that the file gets, in nanoseconds since 1970; 0: when it is written."""
    outputs: tuple[Mapping[str, Any], ...] = ()
    """All files of the image, each a map of an `Output` and its `path`; `path` and `format` of the task are
    those of the first. () for one plain file."""
    published: tuple[Mapping[str, Any], ...] = ()
    """Those of them that an earlier attempt has published: `number`, `path`, `bytes`."""
    archive: str = ""
    """Path of the archive that it goes into, below `root`, without number and ending; `path` is the archive
    that is expected then."""
    member: str = ""
    """Its name in that archive."""
    mount: str = ""
    """Mount point of the disk that the file belongs on, "" for that of the system: if nothing is mounted
    there, the image waits. Further files of the image have theirs in `outputs`, as `mount`."""
    mirror_mounts: Mapping[str, str] | None = None
    """Mirror -> mount point of its disk, of those that are not on the disk of the system; and so for each
    folder in a mirror that is on another disk than the mirror itself (`mount_at`)."""
    noted: Mapping[str, Any] | None = None
    """Temporary name -> map of the `Note` that an attempt left which ended before its result was
    journaled."""
    mark: tuple[int, ...] = ()
    """Of an image whose receipt came before its seal: its lease, and where in `segment` the mark lies that
    says whether its pixels are complete (`core/early.py`)."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all its files, the first one first."""
        return tuple(output["path"] for output in self.outputs) if self.outputs else (self.path,)

    @property
    def temp_paths(self) -> tuple[str, ...]:
        """The temporary files that an attempt which died may have left: beside the files, or where the gate
        would have put them. The first file may have metadata beside it."""
        temps: list[str] = []
        for part, path in (
            *((output_part(n), path) for n, path in enumerate(self.paths)),
            ("json", self.path),
        ):
            name = temp_name(self.job_id, self.index, part)
            for place in (path, self.discarded(path)):
                folder, separator, _ = _parts(place)
                temps.append(folder + separator + name)
        return tuple(temps)

    @property
    def discarded_path(self) -> str:
        """Where it goes when the gate rejects it: `<save_path>/_discarded/`, under its own name."""
        return self.discarded(self.path)

    def discarded(self, path: str) -> str:
        """Where the file of `path` goes when the gate rejects the image."""
        folder, separator, name = _parts(path)
        if self.in_affix_folder:
            folder = folder.rpartition(separator)[0]
        return separator.join((folder, DISCARDED, name))

    @property
    def nbytes(self) -> int:
        """Size of the pixels in bytes."""
        return self.frames * self.height * self.width * self.channels * DTYPES[self.dtype]


def _parts(path: str) -> tuple[str, str, str]:
    """The folder, the separator and the name of a path."""
    return path.rpartition("\\" if path.rfind("\\") > path.rfind("/") else "/")


def output_part(number: int) -> str:
    """Return what names the temporary and spooled files of an output; the first is the image itself."""
    return f"o{number}" if number else ""


@dataclass(slots=True, unsafe_hash=True)
class ImageResult(Message):
    """What came of one image.

    `state` is "saved", "discarded" (rejected by the gate, written to `_discarded`), "dropped" (rejected, not
    written) or "failed". `code` is "" or an error code; "disk" means that the same write may succeed later.
    `ms` holds the milliseconds of gate, scores, encode and write.
    """

    state: str
    path: str = ""
    bytes: int = 0
    score: float | None = None
    threshold: float | None = None
    error: str = ""
    code: str = ""
    warnings: tuple[str, ...] = ()
    ms: Mapping[str, float] | None = None
    scores: Mapping[str, Any] | None = None
    """What it looks like, of `imaging/scores.py`, and `nan_count`: values that were NaN or infinite."""
    thumbnail: Bytes = b""
    row: Bytes = b""
    """Its row of the catalogue, packed; b"" without a catalogue."""
    uploads: tuple[Mapping[str, Any], ...] = ()
    """Where the encoded files have to be sent yet: `spool` (file), `root` and `name` of each target. With
    `bytes`: its worker has sent it."""
    spool_bytes: int = 0
    """Bytes of those files in the spool."""
    files: tuple[Mapping[str, Any], ...] = ()
    """Of an image with several: those that are published, `number`, `path` and `bytes` of each."""
    noted: Mapping[str, Any] | None = None
    """Of a failed one: temporary name -> map of the `Note` of a file that may have its name nevertheless."""
