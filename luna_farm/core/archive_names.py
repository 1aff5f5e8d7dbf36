"""Names of archives: which number the next one of a series gets, and which open shard a request goes to.

Pure. Numbers are given out here: a shard is never published under the name of a file that exists.
"""

from __future__ import annotations

import re

from luna_farm.core import events
from luna_farm.core.filenames import collision_key
from luna_farm.core.instructions import ReserveNames
from luna_farm.core.messages import DISCARDED, SaveOptions
from luna_farm.core.state import Farm

MAX_SERIES = 1024
"""Names of archives whose last number is remembered; of others the folder is looked at again."""
_NUMBER = re.compile(r"_(\d{5,})(?=\.[a-z]+$)")


def shared(options: SaveOptions) -> bool:
    """Whether a request goes to an open shard, instead of an archive of its own."""
    return bool(options.shard_images or options.shard_bytes or options.shard_idle_s)


def names_wanted(farm: Farm, job_id: str, options: SaveOptions, base: str) -> ReserveNames:
    """Return the request for the number of an archive; without names where the last number is known."""
    known = series_of(options.output_dir, base, options.archive) in farm.series
    relatives = () if known else (f"{base}_%counter%.{options.archive}",)
    return ReserveNames(job_id, options.output_dir, relatives, mirrors=options.mirrors, archive=base)


def path_for(farm: Farm, options: SaveOptions, base: str, event: events.NamesReserved) -> str:
    """Return the path of the archive that a job is going to be in, as far as that is known now."""
    # Numbers are given out here, and a shard never takes the name of a file: nothing has to be reserved.
    farm.taken.difference_update(map(collision_key, event.paths))
    key = series_of(options.output_dir, base, options.archive)
    if key not in farm.series:
        for path in event.paths:
            farm.series[key] = with_archive_number(path, number_of(path) - 1)
        while len(farm.series) > MAX_SERIES:
            del farm.series[next(iter(farm.series))]
    last = farm.series[key]
    if shared(options):
        number = farm.open_shards.get(shard_key(options, base, ""))
        return farm.shards[number].path if number else with_archive_number(last, number_of(last) + 1)
    farm.series[key] = with_archive_number(last, number_of(last) + 1)
    return farm.series[key]


def number_of(path: str) -> int:
    """Return the number of an archive: 7 for `a_00007.tar`."""
    found = _NUMBER.search(path)
    return int(found[1]) if found else 0


def with_archive_number(path: str, number: int) -> str:
    """Return the path with another number."""
    return _NUMBER.sub(f"_{number:05d}", path)


def series_of(output_dir: str, base: str, kind: str) -> str:
    return collision_key(f"{output_dir}/{base}.{kind}")


def shard_key(options: SaveOptions, base: str, job_id: str) -> str:
    bounds = f"{options.shard_images}/{options.shard_bytes}/{options.shard_idle_s}"
    return "/".join((series_of(options.output_dir, base, options.archive), bounds, job_id, *options.mirrors))


def set_aside_below(path: str, separator: str) -> str:
    """Rejected images go to archives of their own, which no reader of the others sees."""
    folder, slash, name = path.rpartition(separator)
    return f"{folder}{slash}{DISCARDED}{separator}{name}"
