"""The cost model: what a load needs of every part, and which part gives way first. Pure arithmetic on measured costs.

Rates are those that have to be borne at the time, not means over a day. What was measured comes in as `Measured`, what
is assumed of machines as `Hardware`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import ceil, expm1
from typing import NamedTuple

from tests.scale.costs import PAGE_BYTES, Kind, Measured

MEASURED_BATCH = 1_000
GB = 1e9
CELLS_AT_MOST = 1_000
STORAGE, VACUUM = "storage", "VACUUM"

CHANGES: Mapping[Kind, float] = {Kind.NEW: 0.25, Kind.FLIP: 0.75}
"""What share of the deltas does what to its row, where a tool sends who joined and who left."""
COPIES: Mapping[Kind, float] = {Kind.NEW: 0.01, Kind.FLIP: 0.04, Kind.REFRESH: 0.95}
"""The same where it sends everybody each time."""


class Workload(NamedTuple):
    """A load. The rest is what most cohorts look like; say otherwise where yours don't."""

    memberships: float
    """Contexts that are in, counted once for each segment."""
    deltas_a_second: float
    members_a_record: float = 1_000
    mix: Mapping[Kind, float] = CHANGES
    left: float = 0.25
    """Rows of members who left, for each who is in."""
    segments_a_context: float = 5
    environments: int = 4
    """All of one size. One has one store, and one projector for each target; so there are no more cells than these."""
    projections: int = 1
    """Targets for each environment."""
    hot_share: float = 0.1
    """Of the deltas, those of the largest segment, where records are keyed by segment: they fill one partition."""

    @property
    def rows(self) -> float:
        return self.memberships * (1 + self.left)

    @property
    def changes_a_second(self) -> float:
        """What the projectors have to apply."""
        return self.deltas_a_second * (self.share(Kind.NEW) + self.share(Kind.FLIP))

    def share(self, kind: Kind) -> float:
        return self.mix.get(kind, 0.0)


class Hardware(NamedTuple):
    """What machines can do: assumed, not measured. A primary is one PostgreSQL server, which has one cell."""

    primary_cores: int = 32
    primary_memory_gb: float = 256
    primary_wal_mb_s: float = 400
    primary_reads_a_second: float = 100_000
    primary_storage_gb: float = 8_000
    checkpoint_s: float = 900
    """`checkpoint_timeout`, with a `max_wal_size` that never comes before it."""
    compresses_images: bool = False
    redis_node_gb: float = 48
    usable: float = 0.7
    """Of cores and of memory: the rest is for peaks, for what else runs, and for what the model does not know."""


class Primary(NamedTuple):
    """What one PostgreSQL server has to do a second. Cores are whole ones, however many share the work."""

    cores: float
    vacuum_cores: float
    """Of them; all of one table's by one process."""
    row_writes: float
    wal_mb: float
    checkpoint_mb: float
    random_reads: float
    storage_gb: float


class Needs(NamedTuple):
    """What a load needs in all. `used` has for each part that can't simply be doubled how much of one it uses."""

    worker_cores: float
    replicas: int
    partitions: int
    kafka_mb_s: float
    kafka_read_mb_s: float
    """Each cell reads all of it."""
    primary: Primary
    """Before it is shared out among cells."""
    cells: int
    redis_gb: float
    redis_nodes: int
    dynamodb_gb: float
    refill_s: float
    """Of the targets of one environment that were lost, all environments at the same time."""
    rebuild_s: float
    """The same of targets that serve meanwhile."""
    used: Mapping[str, float]

    @property
    def first(self) -> str:
        """What gives way first when the load grows."""
        return max(self.used, key=lambda part: self.used[part])


def needs(load: Workload, measured: Measured, hardware: Hardware | None = None) -> Needs:
    """What this load needs on such machines."""
    machines = hardware or Hardware()
    cells = _cells(load, measured, machines)
    rate = replica_rate(load, measured, machines, cells=cells)
    replicas = ceil(load.deltas_a_second / rate)
    kafka_bytes = measured.kafka_bytes + _smaller_records(load, measured.kafka_bytes, measured.kafka_bytes_single)
    redis_gb = _redis_bytes(load, measured) / GB
    redis_cores = load.changes_a_second * measured.projected.redis_cpu_s / 1e6
    target_rate = measured.projected.changes_a_second
    return Needs(
        worker_cores=load.deltas_a_second * _worker_cpu_s(load, measured, cells) / 1e6,
        replicas=replicas,
        partitions=2 * replicas,
        kafka_mb_s=load.deltas_a_second * kafka_bytes / 1e6,
        kafka_read_mb_s=load.deltas_a_second * kafka_bytes * cells / 1e6,
        primary=primary(load, measured, machines),
        cells=cells,
        redis_gb=redis_gb,
        redis_nodes=ceil(max(redis_gb / (machines.redis_node_gb * machines.usable), redis_cores / machines.usable)),
        dynamodb_gb=_dynamodb_bytes(load, measured) / GB,
        refill_s=load.memberships / load.environments / target_rate,
        rebuild_s=load.memberships / load.environments / measured.rebuilt_a_second,
        used={
            **used(load, measured, machines),
            "projector": load.changes_a_second / load.environments / projector_rate(measured, machines),
            "hot partition": load.hot_share * load.deltas_a_second / rate,
        },
    )


def used(load: Workload, measured: Measured, machines: Hardware) -> dict[str, float]:
    """How much of one primary this load uses, by what it may run out of."""
    one = primary(load, measured, machines)
    return {
        "PostgreSQL CPU": one.cores / (machines.primary_cores * machines.usable),
        VACUUM: one.vacuum_cores / machines.usable,
        "WAL": one.wal_mb / machines.primary_wal_mb_s,
        "random reads": one.random_reads / machines.primary_reads_a_second,
        STORAGE: one.storage_gb / machines.primary_storage_gb,
    }


def primary_rate(load: Workload, measured: Measured, machines: Hardware, *, vacuum_waits: bool) -> float:
    """Deltas a second that one primary bears, each at what it costs under this load."""
    no_limit = {STORAGE, VACUUM} if vacuum_waits else {STORAGE}
    shares = used(load, measured, machines)
    return load.deltas_a_second / max(share for part, share in shares.items() if part not in no_limit)


def primary(load: Workload, measured: Measured, machines: Hardware) -> Primary:
    """What a primary has to do if it has this load alone."""
    deltas, changes = load.deltas_a_second, load.changes_a_second
    images = page_images(load, measured, machines.checkpoint_s) / machines.checkpoint_s
    image_bytes = measured.page_image_bytes_compressed if machines.compresses_images else measured.page_image_bytes
    dead = deltas * load.share(Kind.FLIP)
    cpu_s = (
        deltas * write_cpu_s(load, measured)
        + dead * measured.vacuum_cpu_s
        + changes * load.projections * measured.projected.postgres_cpu_s
        + images * machines.compresses_images * measured.compressing_cpu_s
    )
    logged = sum(share * measured.deltas[kind].wal_bytes for kind, share in load.mix.items())
    stored = load.rows * measured.storage_churned.total
    looked_up = load.rows * (measured.storage_churned.heap + measured.storage_churned.key_index)
    cached = min(1.0, machines.primary_memory_gb * machines.usable * GB / looked_up)
    return Primary(
        cores=cpu_s / 1e6,
        vacuum_cores=dead * measured.vacuum_cpu_s / 1e6,
        row_writes=deltas * (1 - load.share(Kind.STALE)),
        wal_mb=(deltas * logged + dead * measured.vacuum_wal_bytes + images * image_bytes) / 1e6,
        checkpoint_mb=images * PAGE_BYTES / 1e6,
        random_reads=(1 - cached) * deltas * (2 - load.share(Kind.NEW)),  # a leaf of the index, and the row if any
        storage_gb=stored / GB,
    )


def page_images(load: Workload, measured: Measured, seconds: float) -> float:
    """How many pages are changed first after a checkpoint within so many seconds: each is logged as a whole.

    Deltas meet rows and leaves of the key's index anywhere. New rows and entries of the feed's index lie side by side.
    """
    deltas = load.deltas_a_second * seconds
    storage = measured.storage_churned
    rows = deltas * (load.share(Kind.FLIP) + load.share(Kind.REFRESH))
    entries = deltas * (load.share(Kind.FLIP) + load.share(Kind.NEW))
    return distinct(rows, load.rows * storage.heap / PAGE_BYTES) + distinct(
        entries, load.rows * storage.key_index / PAGE_BYTES
    )


def distinct(drawn: float, among: float) -> float:
    """How many different ones so many random draws meet."""
    return -among * expm1(-drawn / among) if among else 0.0


def replica_rate(load: Workload, measured: Measured, machines: Hardware, *, cells: int = 1) -> float:
    """Deltas a second of one worker among several: it decodes one batch while PostgreSQL writes the one before."""
    slower_s = max(_worker_cpu_s(load, measured, cells), write_cpu_s(load, measured))
    return machines.usable * 1e6 / slower_s


def projector_rate(measured: Measured, machines: Hardware) -> float:
    """Changes a second to one target of one environment, which one process applies."""
    return measured.projected.changes_a_second * machines.usable


def write_cpu_s(load: Workload, measured: Measured) -> float:
    """PostgreSQL's CPU seconds to write a million deltas."""
    return sum(share * measured.deltas[kind].postgres_cpu_s for kind, share in load.mix.items())


def _worker_cpu_s(load: Workload, measured: Measured, cells: int) -> float:
    """For a million deltas of a cell's own. With them come as many for each other cell, to be skipped."""
    batched = sum(share * measured.deltas[kind].worker_cpu_s for kind, share in load.mix.items())
    smaller = _smaller_records(load, measured.deltas[Kind.NEW].worker_cpu_s, measured.single.worker_cpu_s)
    return batched + smaller + (cells - 1) * (measured.skipped.worker_cpu_s + smaller)


def _smaller_records(load: Workload, batched: float, single: float) -> float:
    """What a delta costs more where records have fewer members than those that were measured."""
    a_record = (single - batched) / (1 - 1 / MEASURED_BATCH)
    return a_record * (1 / load.members_a_record - 1 / MEASURED_BATCH)


def _cells(load: Workload, measured: Measured, machines: Hardware) -> int:
    for cells in count(1):
        part = load._replace(memberships=load.memberships / cells, deltas_a_second=load.deltas_a_second / cells)
        if max(used(part, measured, machines).values()) <= 1 or cells == CELLS_AT_MOST:
            return cells
    raise AssertionError


def _redis_bytes(load: Workload, measured: Measured) -> float:
    contexts = load.memberships / load.segments_a_context
    return contexts * measured.redis_bytes_context + (load.memberships - contexts) * measured.redis_bytes_membership


def _dynamodb_bytes(load: Workload, measured: Measured) -> float:
    contexts = load.memberships / load.segments_a_context
    more = load.memberships - contexts
    return contexts * measured.dynamodb_bytes_context + more * measured.dynamodb_bytes_membership
