"""Writes `deploy/monitoring/dashboards/*.json` for Grafana.

    python -m deploy.local.dashboards

A panel is one line here and forty in Grafana's JSON, so they are written here. Every panel has a unit, a sentence that
says what to look for, and where there is a limit, that limit as a threshold. Lines and bars are told apart by
namespace, and named by it: of two cells, one that stands still must not hide behind the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[1] / "monitoring" / "dashboards"
COLUMNS = 24
HEIGHT = 7
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'namespace=~"$namespace"'
REFUSED = 'code=~"4.."'
QUANTILES = ("0.5", "0.99")


class Panel(NamedTuple):
    """A graph, one number where `kind` is `stat`, or a bar for each series where it is `bargauge`."""

    title: str
    says: str
    unit: str
    queries: Sequence[tuple[str, str]]
    """Expression, and legend beside the namespace."""
    width: int = 8
    kind: str = "timeseries"
    warn: float | None = None
    alarm: float | None = None
    least: float | None = None
    """Below it is the alarm."""
    stacked: bool = False


class Row(NamedTuple):
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


def rate(metric: str, *by: str, labels: str = "") -> str:
    """How much of a counter there is in a second."""
    inside = f"{HERE}, {labels}" if labels else HERE
    return f"sum by ({', '.join(('namespace', *by))}) (rate({metric}{{{inside}}}[$__rate_interval]))"


def quantiles(histogram: str, *by: str, labels: str = "") -> list[tuple[str, str]]:
    """The median and the slowest hundredth."""
    shown = " ".join(f"{{{{{label}}}}}" for label in by)
    parts = rate(f"{histogram}_bucket", "le", *by, labels=labels)
    return [(f"histogram_quantile({q}, {parts})", f"p{float(q) * 100:g} {shown}".strip()) for q in QUANTILES]


def age(metric: str, *by: str) -> tuple[str, str]:
    """How long ago the newest of these timestamps was."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return f"time() - max by ({', '.join(('namespace', *by))}) ({metric}{{{HERE}}})", legend


WITHIN_A_MINUTE = f'cohort_sync_event_to_store_seconds_bucket{{{HERE}, le="60.0"}}'
STORED = f"cohort_sync_event_to_store_seconds_count{{{HERE}}}"
PUNCTUAL_BY_FEED, STORED_BY_FEED = (
    f"sum by (namespace, feed) (rate({counted}[1h]))" for counted in (WITHIN_A_MINUTE, STORED)
)
STAGE_SECONDS = f"rate(cohort_sync_stage_seconds_total{{{HERE}}}[$__rate_interval])"
REBALANCES = f"max by (namespace) (increase(cohort_sync_rebalances_total{{{HERE}}}[15m]))"
WORKERS = f"count by (namespace) (cohort_sync_assigned_partitions{{{HERE}}})"
FAILED = f'cohort_sync_gateway_requests_total{{{HERE}, code=~"5.."}}'
ANSWERED = f"cohort_sync_gateway_requests_total{{{HERE}}}"


OVERVIEW = (
    Row(
        "Is it fresh, and for whom not?",
        (
            Panel(
                "Stored within a minute",
                "Share of the records of the last hour that were stored within 60 s. The objective is 99 %.",
                "percentunit",
                [(f"sum(rate({WITHIN_A_MINUTE}[1h])) / sum(rate({STORED}[1h]))", "")],
                width=6,
                kind="stat",
                least=0.99,
            ),
            Panel(
                "Oldest projection",
                "Age of what the SDKs are told. They say STALE at 120 s.",
                "s",
                [(f"max(time() - cohort_sync:projection_synchronized_on_timestamp_seconds{{{HERE}}})", "")],
                width=6,
                kind="stat",
                warn=60,
                alarm=100,
            ),
            Panel(
                "Records that wait",
                "All records in Kafka that are not read yet.",
                "short",
                [(f"sum(cohort_sync_consumer_lag_records{{{HERE}}})", "")],
                width=6,
                kind="stat",
                warn=10_000,
                alarm=1_000_000,
            ),
            Panel(
                "Held partitions",
                "Not read, as most of their records were rejected. A person has to look.",
                "short",
                [(f'sum(cohort_sync_paused_partitions{{{HERE}, reason="dead_letters"}})', "")],
                width=6,
                kind="stat",
                alarm=1,
            ),
            Panel(
                "Stored within a minute, by feed",
                "The same of each feed. One that is not here had no record stored in the last hour: see beside it.",
                "percentunit",
                [(f"{PUNCTUAL_BY_FEED} / ({STORED_BY_FEED} > 0)", "{{feed}}")],
                kind="bargauge",
                least=0.99,
            ),
            Panel(
                "Since the last stored record, by feed",
                "Also of feeds of which nothing is stored now. Longer than its source is silent: look at what waits.",
                "s",
                [(f"time() - cohort_sync:feed_active_timestamp_seconds{{{HERE}}}", "{{feed}}")],
                kind="bargauge",
            ),
            Panel(
                "Records that wait, by topic",
                "One topic above the others: its feed is held, or its partitions stand still.",
                "short",
                [(f"sum by (namespace, topic) (cohort_sync_consumer_lag_records{{{HERE}}})", "{{topic}}")],
                kind="bargauge",
                warn=10_000,
                alarm=1_000_000,
            ),
            Panel(
                "Freshness by feed",
                "From the record's time at the broker to the commit. One feed above the others: see its partitions.",
                "s",
                quantiles("cohort_sync_event_to_store_seconds", "feed"),
                width=12,
                warn=30,
                alarm=60,
            ),
            Panel(
                "Budget burnt, by feed",
                "Share of late records over the objective's 1 %. 14.4 for an hour wakes somebody, 1 uses the month up.",
                "short",
                [(f"cohort_sync:late_records:ratio_rate1h{{{HERE}}} / 0.01", "{{feed}}")],
                width=12,
                warn=1,
                alarm=14.4,
            ),
        ),
    ),
    Row(
        "What comes in, and what is wrong with it",
        (
            Panel(
                "Records by feed",
                "A feed that stops has no other sign than this.",
                "reqps",
                [(rate("cohort_sync_records_total", "feed"), "{{feed}}")],
            ),
            Panel(
                "Deltas by change",
                "Members that joined and left.",
                "ops",
                [(rate("cohort_sync_deltas_total", "integration", "change"), "{{integration}} {{change}}")],
            ),
            Panel(
                "Dead letters by reason",
                "`cohort-sync dead-letters list` tells which; a new reason means that a source changed what it sends.",
                "ops",
                [(f"{rate('cohort_sync_dead_letters_total', 'reason')} > 0", "{{reason}}")],
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "What does not answer",
                "1: this dependency, by its name in `/readyz`, did not answer when that part of ours last asked it.",
                "short",
                [
                    (
                        f"1 - min by (namespace, job, dependency) (cohort_sync_dependency_up{{{HERE}}})",
                        "{{job}} {{dependency}}",
                    )
                ],
                width=12,
                alarm=1,
            ),
            Panel(
                "Versions",
                "More than one for long: a rollout hangs.",
                "short",
                [(f"count by (namespace, version, job) (cohort_sync_build_info{{{HERE}}})", "{{job}} {{version}}")],
                width=12,
            ),
            Panel(
                "Event loop lag",
                "Above 1 s heartbeats are at risk.",
                "s",
                [(f"cohort_sync_event_loop_lag_seconds{{{HERE}}}", "{{pod}}")],
                width=12,
                warn=0.5,
                alarm=1,
            ),
            Panel(
                "Memory",
                "Resident memory of each process. Flat, but for its first minutes.",
                "bytes",
                [(f"process_resident_memory_bytes{{{HERE}}}", "{{pod}}")],
                width=12,
            ),
        ),
    ),
)

PIPELINE = (
    Row(
        "Where time goes",
        (
            Panel(
                "Seconds in each stage, a second and worker",
                "The stage near 1 is the limit: `write` is PostgreSQL, `decode` the worker's CPU, `poll` is idleness.",
                "percentunit",
                [(f"avg by (namespace, stage) ({STAGE_SECONDS})", "{{stage}}")],
                width=12,
                warn=0.8,
                alarm=1,
            ),
            Panel(
                "One write",
                "Time of a write to PostgreSQL, a batch each.",
                "s",
                quantiles("cohort_sync_store_write_seconds", labels='outcome="stored"'),
                width=6,
                warn=1,
                alarm=5,
            ),
            Panel(
                "Writes by outcome",
                "`unavailable`: PostgreSQL is away, and the same batch waits.",
                "ops",
                [(rate("cohort_sync_store_write_seconds_count", "outcome"), "{{outcome}}")],
                width=6,
            ),
            Panel(
                "Deltas of a batch",
                "At the limit all the time: full load.",
                "short",
                quantiles("cohort_sync_batch_deltas"),
            ),
            Panel(
                "Batches by what made them due",
                "Only `age`: there is little to do. Mostly `count` or `bytes`: full load.",
                "ops",
                [(rate("cohort_sync_batch_flushes_total", "trigger"), "{{trigger}}")],
                stacked=True,
            ),
            Panel(
                "CPU",
                "Of each process; 1 is a core, and a process has only one loop.",
                "percentunit",
                [(rate("process_cpu_seconds_total", "pod"), "{{pod}}")],
                warn=0.8,
            ),
        ),
    ),
    Row(
        "Partitions",
        (
            Panel(
                "Lag by partition",
                "One partition above the others: a hot key, or it is held.",
                "short",
                [
                    (
                        f"max by (namespace, topic, partition) (cohort_sync_consumer_lag_records{{{HERE}}})",
                        "{{topic}} {{partition}}",
                    )
                ],
                width=12,
            ),
            Panel(
                "Age of the last stored record, by partition",
                "With lag and rising: this partition stands still. Without lag it only says that nothing came.",
                "s",
                [age("cohort_sync_consumer_position_timestamp_seconds", "topic", "partition")],
                width=12,
            ),
            Panel(
                "Paused partitions",
                "`back_pressure`: PostgreSQL is slower than Kafka. `dead_letters`: a person has to look.",
                "short",
                [(f"sum by (namespace, reason) (cohort_sync_paused_partitions{{{HERE}}})", "{{reason}}")],
            ),
            Panel(
                "Partitions of each worker",
                "0 is a worker too many.",
                "short",
                [(f"cohort_sync_assigned_partitions{{{HERE}}}", "{{pod}}")],
            ),
            Panel(
                "Rebalances beyond a rollout's",
                "In 15 minutes, without two for each worker. Above 0: workers come and go, or are too slow.",
                "short",
                [(f"{REBALANCES} - 2 * {WORKERS}", "in 15 minutes")],
                alarm=10,
            ),
            Panel(
                "Commits by outcome",
                "`unavailable`: no broker answers. `rebalanced` is normal in a rollout.",
                "ops",
                [(rate("cohort_sync_commits_total", "outcome"), "{{outcome}}")],
                width=12,
            ),
            Panel(
                "Open tasks and files",
                "Flat whatever happens; growth is a leak.",
                "short",
                [
                    (f"cohort_sync_event_loop_tasks{{{HERE}}}", "{{pod}} tasks"),
                    (f"process_open_fds{{{HERE}}}", "{{pod}} files"),
                ],
                width=12,
            ),
        ),
    ),
    Row(
        "What records say",
        (
            Panel(
                "Rejects by reason",
                "Members and whole records. See the README's table of reasons.",
                "ops",
                [(f"{rate('cohort_sync_rejects_total', 'integration', 'reason')} > 0", "{{integration}} {{reason}}")],
                width=12,
            ),
            Panel(
                "Ignored records",
                "Valid, but about no membership. No error.",
                "ops",
                [(f"{rate('cohort_sync_ignored_records_total', 'reason')} > 0", "{{reason}}")],
                width=6,
            ),
            Panel(
                "Stale, contradicting, from the future",
                "Stale: a replay, or a source repeats itself. Future: a source's clock is wrong.",
                "ops",
                [
                    (rate("cohort_sync_stale_deltas_total"), "stale deltas"),
                    (rate("cohort_sync_conflicting_members_total"), "members in and out at once"),
                    (rate("cohort_sync_future_event_times_total"), "clocks ahead"),
                ],
                width=6,
            ),
        ),
    ),
)

STORES = (
    Row(
        "Projections: what the SDKs read",
        (
            Panel(
                "Age of what the SDKs are told",
                "They say STALE at 120 s. All rise together: the worker or PostgreSQL. One alone: its target.",
                "s",
                [age("cohort_sync_projection_synchronized_on_timestamp_seconds", "projection")],
                width=12,
                warn=60,
                alarm=100,
            ),
            Panel(
                "Cursor lag",
                "How long ago the end of the change feed was reached. High with a fresh pipeline: the target is slow.",
                "s",
                [
                    (
                        f"max by (namespace, projection) (cohort_sync_projection_cursor_lag_seconds{{{HERE}}})",
                        "{{projection}}",
                    )
                ],
                width=12,
                warn=30,
                alarm=60,
            ),
            Panel(
                "Applied memberships",
                "A high plateau: a rebuild, or a target that was flushed and is filled again.",
                "ops",
                [(rate("cohort_sync_projection_applied_total", "projection"), "{{projection}}")],
                width=12,
            ),
            Panel(
                "Refused memberships",
                "Contexts in more segments than an item of DynamoDB holds.",
                "ops",
                [(rate("cohort_sync_projection_refused_total", "projection"), "{{projection}}")],
                width=12,
                alarm=0.001,
            ),
        ),
    ),
    Row(
        "PostgreSQL: the truth",
        (
            Panel(
                "Writes",
                "Time of a write, a batch each.",
                "s",
                quantiles("cohort_sync_store_write_seconds", "outcome"),
                warn=1,
                alarm=5,
            ),
            Panel(
                "Oldest open write transaction",
                "Projections can't go past it. Minutes: somebody forgot a session.",
                "s",
                [(f"max by (namespace) (cohort_sync_store_horizon_age_seconds{{{HERE}}})", "age")],
                warn=30,
                alarm=60,
            ),
            Panel(
                "Segments",
                "A sudden rise: a source invents cohort ids.",
                "short",
                [(f"max by (namespace) (cohort_sync_segments{{{HERE}}})", "segments")],
            ),
            Panel(
                "Drains and replace sessions",
                "A drain empties a segment; a page of a session is a part of a full copy.",
                "ops",
                [(rate("cohort_sync_operations_total", "integration", "operation"), "{{integration}} {{operation}}")],
            ),
            Panel(
                "Full copies that miss pages",
                "They remove nobody until all pages are there.",
                "short",
                [(f"max by (namespace) (cohort_sync_open_replace_sessions{{{HERE}}})", "open")],
            ),
            Panel(
                "Oldest of them",
                "Hours: the source stopped in the middle.",
                "s",
                [(f"max by (namespace) (cohort_sync_oldest_open_replace_session_seconds{{{HERE}}})", "oldest")],
                warn=3600,
                alarm=21_600,
            ),
        ),
    ),
)

GATEWAY = (
    Row(
        "Requests",
        (
            Panel(
                "Failed for a reason of ours",
                "Share of answers with 5xx in the last hour. The objective is 0.1 %.",
                "percentunit",
                [(f"sum(rate({FAILED}[1h])) / (sum(rate({ANSWERED}[1h])) > 0) or vector(0)", "")],
                width=6,
                kind="stat",
                warn=0.001,
                alarm=0.0144,
            ),
            Panel(
                "In flight",
                "Requests that are not answered yet. A rise: Kafka acknowledges slowly.",
                "short",
                [(f"sum(cohort_sync_gateway_in_flight_requests{{{HERE}}})", "")],
                width=6,
                kind="stat",
                warn=500,
                alarm=2_000,
            ),
            Panel(
                "Answers by status",
                "403: somebody's token is wrong. 429: one token sends too much. 503: Kafka, or too much at once.",
                "reqps",
                [(rate("cohort_sync_gateway_requests_total", "code"), "{{code}}")],
                width=12,
                stacked=True,
            ),
            Panel(
                "Requests by route",
                "What tools send.",
                "reqps",
                [(rate("cohort_sync_gateway_requests_total", "route"), "{{route}}")],
                width=12,
            ),
            Panel(
                "Time to the answer, by route",
                "Kafka's acknowledgement included. Amplitude gives up after a second.",
                "s",
                quantiles("cohort_sync_gateway_request_seconds", "route"),
                width=12,
                warn=0.5,
                alarm=1,
            ),
            Panel(
                "Refused, by route and status",
                "4xx are the caller's to mend.",
                "reqps",
                [(rate("cohort_sync_gateway_requests_total", "route", "code", labels=REFUSED), "{{route}} {{code}}")],
                width=12,
            ),
            Panel(
                "Event loop lag",
                "Above 1 s answers are late, too.",
                "s",
                [(f'cohort_sync_event_loop_lag_seconds{{{HERE}, job=~".*gateway.*"}}', "{{pod}}")],
                width=12,
                warn=0.5,
                alarm=1,
            ),
        ),
    ),
)

DASHBOARDS: dict[str, tuple[str, Sequence[Row]]] = {
    "overview": ("cohort-sync: overview", OVERVIEW),
    "pipeline": ("cohort-sync: pipeline", PIPELINE),
    "stores": ("cohort-sync: stores and projections", STORES),
    "gateway": ("cohort-sync: gateway", GATEWAY),
}


def dashboard(name: str) -> dict[str, Any]:
    """As Grafana imports it."""
    title, rows = DASHBOARDS[name]
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append({"type": "row", "title": row.title, "gridPos": _place(0, y, COLUMNS, 1), "panels": []})
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            panels.append(_panel(panel, x, y))
            x += panel.width
        y += HEIGHT
    for number, placed in enumerate(panels, 1):
        placed["id"] = number
    return {
        "uid": f"cohort-sync-{name}",
        "title": title,
        "tags": ["cohort-sync"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["cohort-sync"], "title": "cohort-sync", "asDropdown": True}],
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "namespace",
            "label": "Namespace",
            "type": "query",
            "datasource": DATASOURCE,
            "query": "label_values(cohort_sync_build_info, namespace)",
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    limits = [(panel.warn, "orange"), (panel.alarm, "red"), (panel.least, "green")]
    start = "green" if panel.least is None else "red"
    steps = [{"value": None, "color": start}, *({"value": at, "color": c} for at, c in limits if at is not None)]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        lines = "dashed" if len(steps) > 1 else "off"
        stacking = "normal" if panel.stacked else "none"
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": stacking},
            "thresholdsStyle": {"mode": lines},
        }
        defaults["min"] = 0
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "timeseries":
        options = {"legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}}
    elif panel.kind == "stat":
        options["colorMode"] = "value"
    else:
        options |= {"orientation": "horizontal", "displayMode": "basic", "showUnfilled": True}
        defaults |= {"min": 0} | ({"max": 1} if panel.unit == "percentunit" else {})
    before = "" if panel.kind == "stat" else "{{namespace}} "
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": DATASOURCE,
        "gridPos": _place(x, y, panel.width, HEIGHT),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": f"{before}{legend}".strip(),
            }
            for number, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def text_of(name: str) -> str:
    """What the file holds."""
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(text_of(each))
