"""`cohort-sync status`: how far the worker is, feed by feed."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import click

from consumers.feeds import Feed
from consumers.inspection import PartitionLag, kafka_inspector
from stores.errors import StoreError
from stores.model import OpenSession
from stores.postgres.change_feed import ChangeFeed, ProjectionState
from stores.postgres.reading import postgres_reader
from worker.commands.frame import json_option, with_settings
from worker.commands.output import print_json, print_line, print_table, rfc3339
from worker.commands.segments import session_in_words, session_row
from worker.metric_definitions import BACK_PRESSURE, DEAD_LETTERS
from worker.settings import HttpSettings, Settings

PROBE_TIMEOUT_S = 2.0
SILENT_S = 15.0
"""A projector tells every few seconds, and another takes over within ten."""
_WHY_PAUSED = {
    BACK_PRESSURE: "the store is slower than the feed at this moment; it goes on by itself",
    DEAD_LETTERS: "its topic is held, as most of its records were rejected: look at `cohort-sync dead-letters list`, "
    "mend the producer or the feed, and restart the worker",
}
_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class FeedLag(NamedTuple):
    """A feed with the partitions of its topics."""

    feed: Feed
    partitions: list[PartitionLag]

    def records(self) -> int:
        """How many records wait."""
        return sum(each.records for each in self.partitions)


@click.command("status")
@json_option
@with_settings
def command(settings: Settings, *, as_json: bool) -> None:
    """Shows how far behind the worker is, feed by feed.

    It shows how many records wait and for how long, full copies of cohorts of which pages are missing, up to when each
    projection is complete and why that stands still, and what the worker says about itself.

    Lag is what the consumer group has not committed yet, and freshness the age of the oldest record that waits: 0 when
    everything is stored. Nothing joins the group, so looking disturbs nobody.

    \b
    Examples:
      cohort-sync status
      cohort-sync status --json | jq 'select(.kind == "feed" and .lag_seconds > 30)'

    With --json there is a line of kind "feed" for each feed, "partition" for each partition, "replace_session" for each
    full copy that misses pages, "projection" for each target of the SDKs ("store" with an `error` where those can't be
    asked), and "worker": whether the process at http.host and http.port answers, and if it does, its /readyz.
    """  # noqa: D301 - click's mark for text that it must not wrap
    seen = asyncio.run(_look(settings))
    now_ms = int(time.time() * 1000)
    if as_json:
        _print_json(seen, now_ms)
    else:
        _print(seen, now_ms, settings.http)


class Seen(NamedTuple):
    """What there is to show."""

    feeds: list[FeedLag]
    sessions: list[OpenSession] | StoreError
    projections: list[ProjectionState | str]
    """What each was told to be; its name alone where no projector has told of it, or the store can't be asked."""
    worker: dict[str, Any] | None


async def _look(settings: Settings) -> Seen:
    all_feeds = settings.feed_list()
    async with kafka_inspector(settings.kafka.connection()) as kafka:
        lags = await kafka.lag(settings.kafka.group_id, all_feeds)
    feeds = [FeedLag(feed, [lag for lag in lags if feed.carries(lag.topic)]) for feed in all_feeds]
    return Seen(
        feeds,
        await _open_sessions(settings),
        await _projections(settings),
        await asyncio.to_thread(_readiness, settings.http),
    )


async def _projections(settings: Settings) -> list[ProjectionState | str]:
    names = [projection.name for projection in settings.projections]
    if not names:
        return []
    with suppress(StoreError):
        async with ChangeFeed(settings.postgres.url()) as feed:
            told = {state.name: state for state in await feed.projections()}
            return [told.get(name, name) for name in names]
    return list(names)


async def _open_sessions(settings: Settings) -> list[OpenSession] | StoreError:
    """Replace sessions that miss pages, or why nobody can tell: what else there is to show does not need the store."""
    try:
        async with postgres_reader(settings.postgres.url()) as reader:
            return await reader.open_sessions()
    except StoreError as exc:
        return exc


def _readiness(http: HttpSettings) -> dict[str, Any] | None:
    """What the worker's /readyz says, ready or not, or None where nothing answers."""
    if http.port == 0:
        return None
    host = _ALL_ADDRESSES.get(http.host, http.host)
    request = Request(f"http://{host}:{http.port}/readyz")
    try:
        with urlopen(request, timeout=PROBE_TIMEOUT_S) as answer:  # noqa: S310 - always http
            body = json.load(answer)
    except HTTPError as exc:
        body = _body(exc)
    except (URLError, OSError, ValueError):
        return None
    return body if isinstance(body, dict) else None


def _body(answer: HTTPError) -> object:
    try:
        return json.load(answer)
    except ValueError:
        return None


def _seconds(partitions: list[PartitionLag], now_ms: int) -> float:
    """How long the oldest record has been waiting."""
    waiting = [each.oldest_waiting_ms for each in partitions if each.oldest_waiting_ms is not None]
    return max(0.0, (now_ms - min(waiting)) / 1000) if waiting else 0.0


def _print_json(seen: Seen, now_ms: int) -> None:
    feeds, sessions, projections, worker = seen
    for each in feeds:
        seconds = _seconds(each.partitions, now_ms)
        print_json({"kind": "feed", "feed": each.feed.name, "lag_records": each.records(), "lag_seconds": seconds})
        for lag in each.partitions:
            print_json(_partition_row(each.feed, lag, now_ms))
    for session in sessions if isinstance(sessions, list) else ():
        named = {"environment": session.environment, "segment": session.segment}
        print_json({"kind": "replace_session", **named, **session_row(session)})
    if isinstance(sessions, StoreError):
        print_json({"kind": "store", "error": str(sessions)})
    for projection in projections:
        print_json(_projection_row(projection))
    print_json({"kind": "worker", "reachable": worker is not None} | (worker or {}))


def _projection_row(state: ProjectionState | str) -> dict[str, object]:
    if isinstance(state, str):
        return {"kind": "projection", "projection": state, "synchronized_on": None, "why": _why_stopped(state)}
    return {
        "kind": "projection",
        "projection": state.name,
        "cursor_lag_seconds": _cursor_lag_s(state),
        "synchronized_on": rfc3339(state.synchronized_on),
        "why": _why_stopped(state),
    }


def _cursor_lag_s(state: ProjectionState) -> float | None:
    return None if state.caught_up_at is None else (state.at - state.caught_up_at).total_seconds()


def _why_stopped(state: ProjectionState | str) -> str | None:
    """Why what the SDKs are told does not move; None where it does."""
    if isinstance(state, str):
        return "no projector has told of it: start `cohort-sync project`"
    silent_s = (state.at - state.told_at).total_seconds()
    if silent_s > SILENT_S:
        return (
            f"no projector has told of it for {silent_s:,.0f} s: is `cohort-sync project` running, and its target up?"
        )
    return state.stopped


def _print_projection(state: ProjectionState | str) -> None:
    name = state if isinstance(state, str) else state.name
    since = None if isinstance(state, str) else state.synchronized_on
    told = f"synchronized on {rfc3339(since)}" if since else "not synchronized yet"
    why = _why_stopped(state)
    lag_s = None if isinstance(state, str) else _cursor_lag_s(state)
    lag = "" if lag_s is None else f", cursor {lag_s:,.1f} s behind"
    print_line(f"projection {name}: {told}{lag}" + (f"; stopped: {why}" if why else ""))


def _partition_row(feed: Feed, lag: PartitionLag, now_ms: int) -> dict[str, object]:
    return {
        "kind": "partition",
        "feed": feed.name,
        "topic": lag.topic,
        "partition": lag.partition,
        "committed_offset": lag.committed_offset,
        "end_offset": lag.end_offset,
        "lag_records": lag.records,
        "lag_seconds": _seconds([lag], now_ms),
    }


def _print(seen: Seen, now_ms: int, http: HttpSettings) -> None:
    feeds, sessions, projections, worker = seen
    rows = [
        (
            each.feed.name,
            lag.topic,
            str(lag.partition),
            str(lag.committed_offset),
            str(lag.end_offset),
            lag.records,
            _seconds([lag], now_ms),
        )
        for each in feeds
        for lag in each.partitions
    ]
    numbers = ("partition", "stored up to", "end", "lag records", "lag s")
    print_table(("feed", "topic", *numbers), rows, numbers=numbers)
    print_line("")
    for each in feeds:
        seconds = _seconds(each.partitions, now_ms)
        state = (
            "no topic yet"
            if not each.partitions
            else f"{each.records():,} records wait, the oldest for {seconds:,.1f} s"
        )
        print_line(f"{each.feed.name}: {'up to date' if each.partitions and not each.records() else state}")
    for session in sessions if isinstance(sessions, list) else ():
        print_line(session_in_words(session))
    if isinstance(sessions, StoreError):
        print_line(f"replace sessions: {sessions}")
    for projection in projections:
        _print_projection(projection)
    _print_worker(worker, http)


def _print_worker(worker: dict[str, Any] | None, http: HttpSettings) -> None:
    if worker is None:
        print_line(f"worker: nothing answers at http://{http.host}:{http.port}/readyz")
        return
    print_line(f"worker: {'ready' if worker.get('ready') else 'not ready'}")
    checks = worker.get("checks")
    for name, check in checks.items() if isinstance(checks, dict) else ():
        if not check.get("ok"):
            print_line(f"  {name}: {check.get('why')}")
    paused = worker.get("paused_partitions")
    for partition, reasons in paused.items() if isinstance(paused, dict) else ():
        for reason in reasons:
            print_line(f"  {partition} is paused: {_WHY_PAUSED.get(reason, reason)}")
    for name, value in worker.items():
        if name not in ("ready", "checks", "paused_partitions"):
            print_line(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
