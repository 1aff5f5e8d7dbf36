"""Which destination of the configuration a place belongs to, and the circuit of each. Policy only."""

from __future__ import annotations

from functools import lru_cache

from luna_farm.core.circuits import UPLOADS, Circuit
from luna_farm.core.limits import DestinationLimits
from luna_farm.core.state import Farm
from luna_farm.errors import InvalidRequest
from luna_farm.locations import belongs_to, is_url, parse

KEPT = 64
"""Circuits."""


def destination_of(farm: Farm, root: str) -> tuple[str, int, float]:
    """Return the name of a destination, its uploads at a time and its time limit in seconds."""
    return _destination_of(farm.limits.destinations, root)


@lru_cache(maxsize=256)
def _destination_of(destinations: tuple[DestinationLimits, ...], root: str) -> tuple[str, int, float]:
    if not is_url(root):
        return root, UPLOADS, 0.0
    try:
        location = parse("output_dir", root)
    except InvalidRequest:  # accepted by an older version: its upload says why it fails
        return root, UPLOADS, 0.0
    name = belongs_to(location, [(at.name, at.location) for at in destinations])
    known = next((at for at in destinations if at.name == name), None)
    return (known.name, known.uploads, known.timeout_s) if known else (location.base, UPLOADS, 0.0)


def circuit_at(farm: Farm, root: str) -> Circuit:
    """Return the circuit of the destination that a place belongs to: configured, or the bucket or server."""
    place, limit, timeout_s = destination_of(farm, root)
    return farm.circuits.get(place) or add_circuit(farm, Circuit(place, limit, timeout_s, ahead=limit))


def add_circuit(farm: Farm, circuit: Circuit) -> Circuit:
    """Add the circuit of a new place. Of places that no configuration names, any number may come in requests:
    those that are done with are forgotten above KEPT."""
    if len(farm.circuits) >= KEPT:
        known = {at.name for at in farm.limits.destinations}
        for place, at in list(farm.circuits.items()):
            if at.idle and place not in known:
                del farm.circuits[place]
    farm.circuits[circuit.place] = circuit
    return circuit
