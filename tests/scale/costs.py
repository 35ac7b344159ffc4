"""What a delta, a membership and a change cost, as `make bench BENCH=scale` measured it on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

MEASURED = Path(__file__).parent / "measured.json"
PAGE_BYTES = 8192
"""Of PostgreSQL."""


class Kind(StrEnum):
    """What a delta does to its row, which decides what it costs."""

    NEW = "new"
    FLIP = "flip"
    REFRESH = "refresh"
    STALE = "stale"


class DeltaCost(msgspec.Struct, frozen=True):
    """CPU seconds a million deltas, and WAL bytes a delta without images of whole pages."""

    worker_cpu_s: float
    postgres_cpu_s: float
    kafka_cpu_s: float
    wal_bytes: float


class PageImages(msgspec.Struct, frozen=True):
    """So many deltas to members anywhere among so many pages, right after a checkpoint, logged so many whole pages."""

    kind: Kind
    deltas: int
    heap_pages: int
    key_index_pages: int
    images: int


class Storage(msgspec.Struct, frozen=True):
    """Bytes a row in PostgreSQL."""

    heap: float
    key_index: float
    feed_index: float

    @property
    def total(self) -> float:
        return self.heap + self.key_index + self.feed_index

    def grown(self, now: Sequence[int], before: Sequence[int]) -> Storage:
        """By as much as the table and its indexes have grown."""
        parts = (self.heap, self.key_index, self.feed_index)
        return Storage(*(part * after / size for part, after, size in zip(parts, now, before, strict=True)))


class Projected(msgspec.Struct, frozen=True):
    """CPU seconds a million changes, and how fast one projector was."""

    projector_cpu_s: float
    postgres_cpu_s: float
    redis_cpu_s: float
    changes_a_second: float


class Drain(msgspec.Struct, frozen=True):
    """A topic of new members that waited was drained by so many workers. `hot_share` lay in the first partition.

    The clock ran from when the share `skipped` was stored.
    """

    workers: int
    partitions: int
    hot_share: float
    deltas: int
    skipped: float
    seconds: float


class Machine(msgspec.Struct, frozen=True):
    """On what, and when."""

    date: str
    cores: int
    processor: str
    memory_gb: int
    postgres: str
    load_before: float


class Measured(msgspec.Struct, frozen=True):
    """All of it. Keys have 29 characters, batches 1,000 members."""

    machine: Machine
    deltas: Mapping[Kind, DeltaCost]
    single: DeltaCost
    """A new member that comes in a record of its own."""
    skipped: DeltaCost
    """One of a batch that is another cell's."""
    vacuum_cpu_s: float
    """PostgreSQL's CPU seconds for a million dead rows where a fifth of the table is dead, and the WAL of each row."""
    vacuum_wal_bytes: float
    page_image_bytes: float
    page_image_bytes_compressed: float
    """With `wal_compression` of pglz, and the CPU seconds that a million images then take more."""
    compressing_cpu_s: float
    page_images: list[PageImages]
    storage: Storage
    storage_churned: Storage
    """After every member left and came back, with a VACUUM for each fifth of the table."""
    kafka_bytes: float
    """A delta, in a batch and in a record of its own, before any compression by the producer."""
    kafka_bytes_single: float
    projected: Projected
    rebuilt_a_second: float
    """Memberships that `rebuild` compared with one target, and wrote where they differed."""
    redis_bytes_context: float
    """The first membership of a context, and each one more."""
    redis_bytes_membership: float
    dynamodb_bytes_context: float
    dynamodb_bytes_membership: float
    drains: list[Drain]


def load(path: Path = MEASURED) -> Measured:
    """What a run of the benchmark left. Raises `msgspec.DecodeError` where the file is none of its files."""
    return msgspec.json.decode(path.read_bytes(), type=Measured)
