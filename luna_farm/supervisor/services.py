"""What instructions act on: pools, journal, spools, folders, listener, feed; and how it is made of the
configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from luna_farm.catalogue import rows
from luna_farm.config import Config
from luna_farm.config_destinations import without_secrets
from luna_farm.config_ray import SEND_S, RayCluster
from luna_farm.core import events, recovery
from luna_farm.core.completion import take_reports
from luna_farm.core.pools import NEAR
from luna_farm.core.state import Farm
from luna_farm.engine import ray
from luna_farm.engine.local import LocalPool
from luna_farm.engine.pool import Pool, WorkerSettings
from luna_farm.feed.metrics import Metrics
from luna_farm.feed.server import Feed
from luna_farm.locations import is_url
from luna_farm.storage import thumbnails
from luna_farm.storage.allowed import Allowed
from luna_farm.storage.arena import Segments
from luna_farm.storage.dead_letters import DeadLetters
from luna_farm.storage.large_segments import LargeSegments
from luna_farm.storage.reports import Reports
from luna_farm.storage.spool import Spool
from luna_farm.storage.upload_spool import UploadSpool
from luna_farm.supervisor import state_dir
from luna_farm.supervisor.catalogue_writer import CatalogueWriter
from luna_farm.supervisor.folders import Folders
from luna_farm.supervisor.journal_writer import JournalWriter
from luna_farm.supervisor.listener import Listener
from luna_farm.supervisor.opening import Opening
from luna_farm.supervisor.uploads import Uploads

HandleEvent = Callable[[events.Event], None]


@dataclass(slots=True)
class Services:
    """What instructions act on."""

    farm: Farm
    pools: Mapping[str, Pool]
    """Name of the pool in the core -> the pool."""
    journal_writer: JournalWriter
    listener: Listener
    folders: Folders
    segments: Segments
    spool: Spool
    large: LargeSegments
    reports: Reports
    letters: DeadLetters
    uploads: Uploads
    upload_spool: UploadSpool
    metrics: Metrics
    catalogue: CatalogueWriter | None
    feed: Feed | None = None

    def keep_reports(self) -> None:
        """Write the reports of the jobs that ended since the last time."""
        self.reports.extend(take_reports(self.farm))

    def snapshot(self) -> list[dict[str, Any]]:
        """Return what a new journal begins with. Reports, which it does not hold, are kept before that."""
        self.keep_reports()
        return recovery.snapshot(self.farm)


def services(
    config: Config,
    farm: Farm,
    opening: Opening,
    listener: Listener,
    handle_event: HandleEvent,
    tell: Callable[[str], None],
) -> Services:
    """Make the services of a farm. `tell` takes what a person should know."""
    spool = UploadSpool(config.state_dir / "uploads")
    allowed = Allowed(config.allowed_dirs, config.follow_links)
    return Services(
        farm=farm,
        pools=_pools(config, spool, allowed, handle_event),
        journal_writer=JournalWriter(opening.journal, config.journal_bytes),
        listener=listener,
        folders=Folders(farm.taken, handle_event, allowed),
        segments=opening.segments,
        spool=Spool(config.state_dir / "spool"),
        large=LargeSegments(config.state_dir / "large"),
        reports=opening.reports,
        letters=DeadLetters(config.state_dir / "dead"),
        uploads=Uploads(
            handle_event, config.destinations, spool.folder, str(config.state_dir / state_dir.ARCHIVES)
        ),
        upload_spool=spool,
        metrics=Metrics(),
        catalogue=_catalogue_writer(config, farm, tell) if config.catalogue else None,
    )


def request_defaults(config: Config) -> dict[str, Any]:
    """What stands for the fields that a request leaves out."""
    return {
        "output_dir": str(config.output_dir),
        "on_reject": config.on_reject,
        "preset": config.preset,
        "model_dirs": "\n".join(map(str, config.model_dirs)),
        "durable": config.durable,
        "provenance": config.provenance,
        "source_type": config.source_type,
        "aigc": config.aigc,
    }


def _pools(
    config: Config, uploads: UploadSpool, allowed: Allowed, handle_event: HandleEvent
) -> dict[str, Pool]:
    """Make the pools that the core knows by their names."""
    settings = WorkerSettings(
        config.fsync,
        str(config.state_dir / state_dir.NOTES),
        config.signing,
        uploads.folder,
        allowed,
        config.catalogue_fields if config.catalogue else None,
        (str(config.state_dir / thumbnails.NAME), config.thumbnail_bytes),
    )
    pools: dict[str, Pool] = {NEAR: LocalPool(handle_event, settings)}
    if config.engine != "local":
        pools[ray.NAME] = ray.RayPool(handle_event, settings, _cluster(config))
    return pools


def _cluster(config: Config) -> RayCluster:
    """What the bridge gets to know: no secrets, and less time for sending a file than a worker has."""
    return replace(
        config.ray_cluster,
        destinations=without_secrets(config.destinations),
        send_s=min(SEND_S, config.worker_deadline_s / 4),
    )


def _catalogue_writer(config: Config, farm: Farm, tell: Callable[[str], None]) -> CatalogueWriter:
    def roots() -> list[str]:
        known = [job.options.output_dir for job in farm.jobs.values()]
        return [root for root in dict.fromkeys((str(config.output_dir), *known)) if not is_url(root)]

    path = str(config.state_dir / rows.NAME)
    return CatalogueWriter(path, config.catalogue_fields, config.catalogue_days, roots, tell)
