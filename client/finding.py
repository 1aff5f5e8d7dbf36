"""`find`: saved images, through the farm if one runs, else from the catalogue's file in the state folder."""

from __future__ import annotations

from typing import Any

from luna_farm.catalogue.rows import NAME, CatalogueRow
from luna_farm.errors import FarmUnavailable, Unauthorized


def find(words: str = "", **filters: Any) -> list[CatalogueRow]:
    """Return the newest saved images that match everything given, whether a farm runs or not.

    words, filters: those of `FarmClient.find`. Raises InvalidRequest, CatalogueUnavailable.
    """
    from luna_farm_client.farm_client import FarmClient

    with FarmClient(restart_s=0.0) as farm:
        try:
            farm.ping()
        except (FarmUnavailable, Unauthorized):
            return _in_file(farm.endpoint.state_dir / NAME, words, **filters)
        return farm.find(words, **filters)


def _in_file(
    path: Any, words: str, *, since: Any = None, similar: Any = None, **filters: Any
) -> list[CatalogueRow]:
    from luna_farm.catalogue.search import Catalogue
    from luna_farm_client.policy import phash_of, seconds_of

    catalogue = Catalogue(path)
    try:
        return catalogue.search(
            words,
            since=seconds_of(since),
            similar="" if similar is None else phash_of(similar),
            **{name: value for name, value in filters.items() if value is not None},
        )
    finally:
        catalogue.close()
