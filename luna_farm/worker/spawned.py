"""What a spawned process starts with. The supervisor imports this to name it, so it must stay free of numpy
and imaging."""

from __future__ import annotations

import os
import signal
import socket

from luna_farm import system
from luna_farm.config_destinations import Destination
from luna_farm.config_provenance import UNSIGNED, Signing
from luna_farm.config_ray import RayCluster
from luna_farm.storage.allowed import ANYWHERE, Allowed


def start_uploader(
    pipe: socket.socket, destinations: tuple[Destination, ...], spool: str, shards: str
) -> None:
    """Become the uploader, until the supervisor says stop or is gone."""
    _become_a_child()
    from luna_farm.worker.uploader import serve

    serve(pipe, destinations, spool, shards)


def start_cataloguer(
    pipe: socket.socket, path: str, names: tuple[str, ...], days: int, roots: tuple[str, ...]
) -> None:
    """Become the process that writes the catalogue, until the supervisor says stop or is gone."""
    _become_a_child()
    from luna_farm.catalogue.cataloguer import serve

    serve(pipe, path, names, days, roots)


def start(
    pipe: socket.socket,
    fsync: bool,
    notes: str,
    signing: Signing = UNSIGNED,
    uploads: str = "",
    allowed: Allowed = ANYWHERE,
    catalogue: tuple[str, ...] | None = None,
    thumbnails: tuple[str, int] = ("", 0),
) -> None:
    """Become a worker that serves the supervisor at the other end of `pipe`, until it is to stop or is left
    alone."""
    _become_a_child()
    # One thread each: the farm's parallelism is its processes.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from luna_farm.worker.main import serve

    system.release_memory()  # what the imports have freed, 0.7 MB

    serve(pipe, fsync, notes, signing, uploads, allowed, catalogue, thumbnails)


def start_bridge(
    pipe: socket.socket,
    cluster: RayCluster,
    fsync: bool,
    notes: str,
    signing: Signing,
    uploads: str,
    allowed: Allowed,
    catalogue: tuple[str, ...] | None,
    thumbnails: tuple[str, int],
) -> None:
    """Become the bridge to a Ray cluster, until the supervisor says stop or is gone."""
    _become_a_child()
    from luna_farm.worker.bridge import serve

    serve(pipe, cluster, fsync, notes, signing, uploads, allowed, catalogue, thumbnails)


def _become_a_child() -> None:
    """Leave signals of the group to the supervisor, and the processor to the program that makes images.

    Ctrl-C reaches the whole group: only the supervisor acts on it. The mask was inherited blocked, so that
    not even a worker that is still starting is hit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    system.lower_priority()
