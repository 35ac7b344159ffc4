"""The tables of deploy/docs/scale.md. Each stands there between two comments with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.scale import text
from tests.scale.costs import Kind, Measured
from tests.scale.hours import proof, simulated
from tests.scale.model import CHANGES, COPIES, Hardware, Needs, Workload, needs
from tests.scale.text import BILLION, MILLION

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "scale.md"
SIZES = (MILLION, 10 * MILLION, 100 * MILLION, BILLION)
LOADS = (
    Workload(MILLION, 10_000),
    Workload(10 * MILLION, 10_000),
    Workload(100 * MILLION, 10_000),
    Workload(100 * MILLION, 100_000),
    Workload(BILLION, 10_000),
    Workload(BILLION, 100_000),
    Workload(BILLION, MILLION),
)
TURNED = Workload(BILLION, 100_000)
"""The load at which the settings are turned."""


def filled(page: str, measured: Measured) -> str:
    """The page with its tables as they follow from what was measured."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in page or end not in page:
            raise ValueError(f"the page has no place for its table {name!r}")
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{make(measured)}\n{end}{rest.partition(end)[2]}"
    return page


def unit_costs(measured: Measured) -> str:
    """What the benchmark found."""
    storage, churned = measured.storage, measured.storage_churned
    names = {
        Kind.NEW: "a member who was never seen",
        Kind.FLIP: "one who joins or leaves",
        Kind.REFRESH: "one who is named again: nothing changes but the version",
        Kind.STALE: "an older or repeated delta: nothing is written",
    }
    costs = text.table(
        ("CPU seconds for a million deltas, and WAL", "worker", "PostgreSQL", "Kafka", "WAL bytes a delta"),
        (
            (
                name,
                *(f"{cost:.1f}" for cost in (each.worker_cpu_s, each.postgres_cpu_s, each.kafka_cpu_s)),
                f"{round(each.wal_bytes):,}",
            )
            for name, each in (
                *((names[kind], measured.deltas[kind]) for kind in names),
                ("never seen, a record of its own (identify call)", measured.single),
                ("one of a record that is another cell's, and skipped", measured.skipped),
            )
        ),
    )
    projected = measured.projected
    rest = text.table(
        ("besides", "figure"),
        (
            ("VACUUM of a million dead rows, a fifth of the table: PostgreSQL's CPU", f"{measured.vacuum_cpu_s:.1f} s"),
            ("... its WAL, a dead row", f"{measured.vacuum_wal_bytes:,.0f} bytes"),
            ("a page image in the WAL", f"{measured.page_image_bytes:,.0f} bytes"),
            ("... with `wal_compression = pglz`", f"{measured.page_image_bytes_compressed:,.0f} bytes"),
            ("... and for a million of them PostgreSQL's CPU", f"{measured.compressing_cpu_s:.0f} s more"),
            (
                "a row in PostgreSQL: table, key's index, feed's index",
                f"{storage.heap:.0f} + {storage.key_index:.0f} + {storage.feed_index:.0f} bytes",
            ),
            (
                "... after everybody left and came back",
                f"{churned.heap:.0f} + {churned.key_index:.0f} + {churned.feed_index:.0f} bytes",
            ),
            (
                "a delta in Kafka, in a batch of 1,000; in a record of its own",
                f"{measured.kafka_bytes:.0f}; {measured.kafka_bytes_single:.0f} bytes",
            ),
            (
                "a million changes projected, CPU of projector; PostgreSQL; Valkey",
                f"{projected.projector_cpu_s:.1f}; {projected.postgres_cpu_s:.1f}; {projected.redis_cpu_s:.1f} s",
            ),
            ("one projector", f"{projected.changes_a_second:,.0f} changes/s"),
            ("`rebuild` of one target", f"{measured.rebuilt_a_second:,.0f} memberships/s"),
            (
                "Valkey's memory, a million contexts with one membership; each million memberships more",
                f"{measured.redis_bytes_context:.0f}; {measured.redis_bytes_membership:.0f} MB",
            ),
            (
                "a context's item in DynamoDB with one membership; each one more",
                f"{measured.dynamodb_bytes_context:.0f}; {measured.dynamodb_bytes_membership:.0f} bytes",
            ),
        ),
    )
    return f"{costs}\n\n{rest}"


def machine(measured: Measured) -> str:
    """Where and when that was."""
    on = measured.machine
    return (
        f"Measured on {on.date} by `make bench BENCH=scale`: {on.cores} cores ({on.processor}), {on.memory_gb} GB, "
        f"PostgreSQL {on.postgres}, load before the start {on.load_before:.2f}."
    )


def assumptions(_: Measured) -> str:
    """What is not measured."""
    load, machines = Workload(0, 0), Hardware()
    return text.table(
        ("assumed", "value"),
        (
            ("a primary's cores; memory", f"{machines.primary_cores}; {machines.primary_memory_gb:.0f} GB"),
            ("... WAL that its disk and its standby take", f"{machines.primary_wal_mb_s:.0f} MB/s"),
            ("... random reads", f"{machines.primary_reads_a_second:,.0f} a second"),
            ("... storage", f"{machines.primary_storage_gb:,.0f} GB"),
            ("time between checkpoints", f"{machines.checkpoint_s / 60:.0f} minutes"),
            ("a node of Redis", f"{machines.redis_node_gb:.0f} GB"),
            ("share of cores and memory that is planned with", f"{machines.usable:.0%}"),
            ("deltas", ", ".join(f"{share:.0%} {kind}" for kind, share in CHANGES.items())),
            ("members of a record", f"{load.members_a_record:,.0f}"),
            ("segments of a context", f"{load.segments_a_context:.0f}"),
            ("rows of leavers, for each member", f"{load.left:.0%}"),
            ("environments, all of one size, each with one target", f"{load.environments}"),
            ("the largest segment's share of the deltas", f"{load.hot_share:.0%}"),
        ),
    )


def sizes(measured: Measured) -> str:
    """What memberships need, whatever the rate."""
    each = [needs(Workload(size, 1), measured) for size in SIZES]
    return text.table(
        ("memberships", "PostgreSQL", "Redis", "nodes", "DynamoDB", "lost targets filled", "`rebuild` of targets"),
        (
            (
                text.count(size),
                text.gb(need.primary.storage_gb),
                text.gb(need.redis_gb),
                str(need.redis_nodes),
                text.gb(need.dynamodb_gb),
                text.time(need.refill_s),
                text.time(need.rebuild_s),
            )
            for size, need in zip(SIZES, each, strict=True)
        ),
    )


def loads(measured: Measured) -> str:
    """What rates need."""
    return text.table(
        (
            "memberships, deltas/s",
            "worker cores",
            "replicas",
            "partitions",
            "Kafka, in; out",
            "PostgreSQL cores",
            "WAL",
            "random reads/s",
            "cells",
            "first to give way",
        ),
        ((text.workload(load), *_needed(needs(load, measured))) for load in LOADS),
    )


def _needed(need: Needs) -> tuple[str, ...]:
    one = need.primary
    return (
        f"{need.worker_cores:.2f}",
        str(need.replicas),
        str(need.partitions),
        f"{need.kafka_mb_s:,.1f}; {need.kafka_read_mb_s:,.1f} MB/s",
        f"{one.cores:.1f}",
        f"{one.wal_mb:,.0f} MB/s",
        f"{one.random_reads:,.0f}",
        str(need.cells),
        _first(need),
    )


def shares(measured: Measured) -> str:
    """How much of one of each is used."""
    each = [needs(load, measured).used for load in LOADS]
    return text.table(
        ("memberships, deltas/s", *each[0]),
        ((text.workload(load), *map(text.share, used.values())) for load, used in zip(LOADS, each, strict=True)),
    )


def turned(measured: Measured) -> str:
    """What each setting changes at one load."""
    load, machines = TURNED, Hardware()
    cases = (
        ("as above", load, machines),
        ("checkpoints each 5 minutes", load, machines._replace(checkpoint_s=300)),
        ("checkpoints each hour", load, machines._replace(checkpoint_s=3_600)),
        ("`wal_compression = pglz`", load, machines._replace(compresses_images=True)),
        ("512 GB of memory", load, machines._replace(primary_memory_gb=512)),
        ("records of one member", load._replace(members_a_record=1), machines),
        ("full copies: 95 % of the deltas change nothing", load._replace(mix=COPIES), machines),
        ("as many rows of leavers as of members", load._replace(left=1), machines),
        ("three targets for each environment", load._replace(projections=3), machines),
    )
    return text.table(
        (
            "turned",
            "worker cores",
            "PostgreSQL cores",
            "WAL",
            "checkpoints write",
            "random reads/s",
            "storage",
            "cells",
            "first to give way",
        ),
        (
            (
                name,
                f"{need.worker_cores:.2f}",
                f"{need.primary.cores:.1f}",
                f"{need.primary.wal_mb:,.0f} MB/s",
                f"{need.primary.checkpoint_mb:,.0f} MB/s",
                f"{need.primary.random_reads:,.0f}",
                text.gb(need.primary.storage_gb),
                str(need.cells),
                _first(need),
            )
            for name, need in ((name, needs(each, measured, on)) for name, each, on in cases)
        ),
    )


def _first(need: Needs) -> str:
    return f"{need.first} ({text.share(need.used[need.first])})"


TABLES: dict[str, Callable[[Measured], str]] = {
    "machine": machine,
    "unit costs": unit_costs,
    "assumptions": assumptions,
    "sizes": sizes,
    "loads": loads,
    "shares": shares,
    "turned": turned,
    "simulated": simulated,
    "proof": proof,
}
