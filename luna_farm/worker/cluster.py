"""A Ray cluster as the bridge needs it: connect, start a worker, move pixels, call, fetch.

The one module that imports ray. What Ray says about a failure in a page of text becomes a sentence here.
Facts about Ray 2.60 that this relies on: `ray.init` exits the process when the head does not answer for a
minute, so the port is tried first; a driver needs a node on its own machine; actors that are not detached end
with their driver; what a call takes and returns travels inside of it up to `max_direct_call_object_size`
(`RAY_` and this name in the environment of the process that sends), and through the object stores of both
nodes beyond.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from numpy.typing import NDArray

from luna_farm import __version__
from luna_farm.config_provenance import Signing
from luna_farm.config_ray import RayCluster, is_address
from luna_farm.worker.actor import Encoder

CALLS = 2
"""Calls of one worker at a time: it encodes an image while it sends the one before."""
TRIED_S = 3.0
"""How long the head's port may take to answer."""
INSIDE_BYTES = 20_000_000
"""Pixels and files up to this size travel inside a call. Through the object stores they take twice as much
processor time, most of it in the raylets; from 25 MB on the copies of a call are the dearer ones."""
INSIDE = {
    "RAY_max_direct_call_object_size": str(INSIDE_BYTES),
    "RAY_task_rpc_inlined_bytes_limit": str(2 * INSIDE_BYTES),
}


class ClusterError(Exception):
    """The cluster cannot be used. The message says why and what to do."""


class WorkerLost(Exception):
    """An actor has ended, or cannot be reached."""


class NotYet(Exception):
    """What was asked for is not there yet."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster: its address, and the port of its raylet."""

    address: str
    port: int


class Actor(Encoder):
    """The encoder as an actor, which knows its node."""

    def hello(self) -> dict[str, Any]:
        """Return what this is, and the id of the node."""
        import ray

        return {**super().hello(), "node": ray.get_runtime_context().get_node_id()}


class Cluster:
    """A connection to a cluster, as its driver. Used from several threads."""

    def __init__(self, given: RayCluster, generation: str) -> None:
        """`generation` tells this connection from earlier ones of the same farm."""
        self._given = given
        self._generation = generation
        self._ray: Any = None
        self._nodes: dict[str, Node] = {}
        self._rows: list[dict[str, Any]] = []
        """What Ray said of the living nodes last."""
        self.address = given.address
        """Of the head, HOST:PORT once that is known."""
        self.store_bytes = 0
        """Size of the object store on this machine."""
        self._here: Node | None = None

    def absent(self) -> str:
        """Return a sentence if there is nothing to connect to, "" if there may be."""
        found = os.environ.get("RAY_ADDRESS", "auto") if self._given.address == "auto" else "auto"
        if found not in ("", "auto") and not is_address(found):
            return (
                f"RAY_ADDRESS is {found!r}, and the farm needs HOST:PORT of the head; set it, or ray_address."
            )
        address = known_address(self._given.address)
        if address and not answers(*split(address), TRIED_S):
            return f"No Ray cluster answers at {address}. Start its head, or set ray_address to where it is."
        if not _node_here():
            return (
                "No Ray node runs on this machine, and the farm hands pixels over to one. Start it with: ray "
                f"start --address={address or 'HOST:6379'} --num-cpus=0"
            )
        return ""

    def connect(self) -> None:
        """Connect, and end what an earlier connection left. Raises ClusterError."""
        address = known_address(self._given.address) or self._given.address
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters becomes an error here
        # Else a call that comes after the connection is lost would start a cluster of its own.
        os.environ.update(INSIDE, RAY_ENABLE_AUTO_CONNECT="0")
        import ray

        self._ray = ray
        try:
            ray.init(
                address=self._given.address,
                namespace=self._given.farm,
                log_to_driver=False,
                configure_logging=False,
            )
        except Exception as error:  # each version of Ray has other classes for the same
            raise ClusterError(why_not(_whole_text(error), address)) from error
        self.address = str(ray.get_runtime_context().gcs_address)
        for name in ray.util.list_named_actors():
            if not name.startswith(
                self._generation
            ):  # it ends with its driver; a head may not have seen that
                self.kill(ray.get_actor(name))
        self.look()
        here = ray.get_runtime_context().get_node_id()
        row = next(row for row in self._rows if row["NodeID"] == here)
        self._here = self._nodes[here]
        self.store_bytes = int(row["Resources"].get("object_store_memory", 0))

    def look(self) -> None:
        """Look at the nodes. Does not return while the head is dead."""
        self._rows = [node for node in self._ray.nodes() if node["Alive"]]
        for node in self._rows:
            self._nodes[node["NodeID"]] = Node(node["NodeManagerAddress"], node["NodeManagerPort"])

    def node(self, node_id: str) -> Node:
        """Return a node by its id."""
        if node_id not in self._nodes:
            self.look()
        return self._nodes[node_id]

    @property
    def _needs(self) -> dict[str, float]:
        return {"CPU": self._given.num_cpus, **self._given.resources}

    def too_small(self) -> str:
        """Return a sentence if no node is large enough for a worker, however little it has to do."""
        needs = self._needs
        if any(all(n["Resources"].get(what, 0) >= needs[what] for what in needs) for n in self._rows):
            return ""
        most = {what: max((n["Resources"].get(what, 0) for n in self._rows), default=0) for what in needs}
        return (
            f"No node of the Ray cluster is large enough for a worker, which takes {_amounts(needs)}; the "
            f"most that one has is {_amounts(most)}."
        )

    def full(self) -> str:
        """Return a sentence on a cluster that has no room now."""
        free = self._ray.available_resources()
        total = self._ray.cluster_resources()
        left = ", ".join(f"{what} {free.get(what, 0):g} of {total.get(what, 0):g}" for what in self._needs)
        needs = _amounts(self._needs)
        return f"No worker found a place in the Ray cluster yet; one takes {needs}, free are {left}."

    def start(self, worker: int, signing: Signing) -> Any:
        """Request a worker; returns its handle at once. It is ready once it has answered to `hello`."""
        options: dict[str, Any] = {
            "num_cpus": self._given.num_cpus,
            "resources": dict(self._given.resources),
            "scheduling_strategy": "SPREAD",
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": CALLS,
            "name": f"{self._generation}-{worker}",
            "runtime_env": {"env_vars": INSIDE},
        }
        return self._ray.remote(Actor).options(**options).remote(Signing(watermark=signing.watermark))

    def hello(self, actor: Any) -> Any:
        """Ask a worker what it is; returns a reference for `fetch`."""
        return actor.hello.remote()

    def encode(self, actor: Any, node: Node | None, pixels: NDArray[Any], *args: Any) -> Any:
        """Have a worker on `node` encode a copy of pixels; returns a reference for `wait` and `fetch`."""
        if node == self._here or pixels.nbytes > INSIDE_BYTES:
            return actor.encode.remote(self._ray.put(pixels), *args)  # no further copy on this machine
        return actor.encode.remote(pixels, *args)

    def wait(self, reference: Any, timeout_s: float) -> None:
        """Return once a call has ended, well or not, and its result is on this machine. Raises NotYet.

        Not by `get`: while that waits for a result on its way, for up to a second, no other thread can use
        the object store.
        """
        done, _ = self._ray.wait([reference], timeout=timeout_s, fetch_local=True)
        if not done:
            raise NotYet

    def fetch(self, reference: Any, timeout_s: float | None = None) -> Any:
        """Return the result of a call. Raises NotYet, WorkerLost, and ClusterError where none can
        run."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=timeout_s)
        except errors.GetTimeoutError:
            raise NotYet from None
        except errors.RayError as error:
            text = str(error)
            if "ModuleNotFoundError: No module named" in text:
                module = text.partition("No module named")[2].split()[0].strip("'")
                raise ClusterError(
                    f"A node of the Ray cluster lacks the package {module}; install luna-farm {__version__} "
                    "with the same extras on every node."
                ) from error
            raise WorkerLost(reason(text)) from error

    def kill(self, actor: Any) -> None:
        """End a worker by force."""
        with contextlib.suppress(Exception):  # it has ended in the meantime
            self._ray.kill(actor)


def _amounts(of: Mapping[str, float]) -> str:
    return ", ".join(f"{what} {amount:g}" for what, amount in of.items())


def answers(host: str, port: int, timeout_s: float) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True


def split(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def known_address(address: str) -> str:
    """Return HOST:PORT of the head where that can be known before connecting, else ""."""
    if address != "auto":
        return address
    given = os.environ.get("RAY_ADDRESS", "")
    if not given:
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        with contextlib.suppress(OSError):
            given = Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    return given if is_address(given) else ""


def _node_here() -> bool:
    """Whether a raylet runs on this machine."""
    return any(process.info["name"].startswith("raylet") for process in psutil.process_iter(["name"]))


def _whole_text(error: BaseException | None) -> str:
    """Return the text of an error and of those that caused it."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def why_not(text: str, address: str) -> str:
    """Return a sentence for what Ray says when it cannot connect."""
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", text)
    if len(versions) >= 2:
        (ray_there, python_there), (ray_here, python_here) = versions[:2]
        return (
            f"The Ray cluster at {address} runs Ray {ray_there} on Python {python_there}, and this farm Ray "
            f"{ray_here} on Python {python_here}; both must be the same."
        )
    if re.search("[Aa]uthentication|token|Unauthenticated", text):
        return (
            f"The Ray cluster at {address} refuses the token of this farm. Set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the token of the cluster."
        )
    return f"The Ray cluster at {address} cannot be used: {reason(text)}"


def reason(text: str) -> str:
    """Return the sentence that matters of what Ray says about a failure."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    because = [line for line in lines if line.startswith("The actor is dead because")]
    first = (because or lines)[0].partition("Worker exit type")[0].strip()
    return first[:300]
