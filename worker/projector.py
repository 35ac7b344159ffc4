"""The projector: keeps one target in step with the change feed.

    change feed ──page──► changes ──apply──► target ──acknowledged──► cursor

State is applied, not operations, and the cursor follows behind: whatever is repeated ends the same. One process leads
a projection, the others wait to take over. A target that is not as it was left is begun anew: filled from the start of
the feed, then swept of what belongs to nobody, and only then called whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Self

import structlog

from consumers.feeds import Feed
from stores.errors import StoreRefusedError, StoreUnavailableError
from stores.parts import in_parts
from stores.postgres.change_feed import ChangeFeed, Cursor, FeedPosition, Lead, LeadLostError, Page
from stores.target import AuditableTarget, Reference, TargetDamagedError
from worker.audit import Audit
from worker.backoff import until_available, waits_s
from worker.freshness import Freshness, freshness
from worker.health import Health
from worker.progress import Progress
from worker.projection_metrics import ProjectionMetrics

log = structlog.get_logger(__name__)

IDLE_S = 0.1
TAKE_OVER_EVERY_S = 2.0
"""With the lease of a leader that froze, the next one leads within 10 s."""
OTHERS_LOOK_S = 10
"""So long another process may take to notice that its target is not as it was left."""
APPLIED_AT_ONCE = 1_000
"""So many changes are given to the target under one look at the lease."""


class Projection(NamedTuple):
    """What to keep in step, as the configuration says it."""

    name: str
    environment: str
    feeds: Sequence[Feed]
    """All of them: each may carry records of any environment."""
    freshness_s: float


class Projector:
    """Goes on for ever: what fails is tried again, and the freshness that the SDKs see stands still meanwhile.

    Only what a person must mend, a `StoreRefusedError`, comes out.
    """

    def __init__(
        self,
        projection: Projection,
        *,
        feed: ChangeFeed,
        target: AuditableTarget,
        metrics: ProjectionMetrics,
        health: Health,
    ) -> None:
        self._projection = projection
        self._feed = feed
        self._target = target
        self._metrics = metrics
        self._health = health
        self._unsure: tuple[int, Cursor] | None = None
        """Under this epoch something was perhaps applied behind this cursor, and the cursor was not saved."""
        self._waits = waits_s()

    async def run(self) -> None:
        """Leads whenever it may."""
        name = self._projection.name
        while True:
            try:
                await self._settle_doubt()
                async with self._feed.leading(name) as lead:
                    self._metrics.leads(name, leads=lead is not None)
                    if lead is not None:
                        log.info("projection_led", projection=name, epoch=lead.epoch)
                        await self._lead(lead)
                self._health.check_passed(f"projection {name}")  # another one leads
                await asyncio.sleep(TAKE_OVER_EVERY_S)
            except LeadLostError:
                log.warning("projection_lead_lost", projection=name)
            except TargetDamagedError as exc:
                log.warning("projection_damaged", projection=name, what=str(exc))
            except StoreUnavailableError as exc:
                wait_s = next(self._waits)
                self._health.check_failed(f"projection {name}", str(exc))
                log.warning("projection_awaited", projection=name, cause=str(exc), retry_after_s=round(wait_s, 2))
                await asyncio.sleep(wait_s)

    async def _settle_doubt(self) -> None:
        """One that froze while it wrote may have put old state over what another has written since: mended by that one.

        Where nobody has led since, there is nothing to mend: the cursor was not moved. But what was sent and not
        acknowledged must not arrive after what will be sent.
        """
        await self._target.settle()
        if self._unsure is not None:
            await self._feed.rewind(self._projection.name, *self._unsure)
            self._unsure = None

    async def _lead(self, lead: Lead) -> None:
        environment = self._projection.environment
        progress, sweep = Progress(), self._sweep(lead)
        if not lead.is_swept:
            await self._require_all_rows(lead)
        async with _ReadAhead(self._feed, environment) as pages:
            while True:
                if progress.is_time_to_tell():
                    if not await self._is_as_left(lead):
                        await self._begin_anew(lead)
                        progress, sweep = Progress(), self._sweep(lead)
                    progress.observe(await self._feed.position(environment))
                    await self._tell(lead, progress)
                if await self._apply_next(lead, progress, pages):
                    if lead.is_swept:
                        await asyncio.sleep(IDLE_S)
                    else:
                        await anext(sweep, None)
                self._health.check_passed(f"projection {self._projection.name}")
                self._waits = waits_s()

    async def _is_as_left(self, lead: Lead) -> bool:
        """Whether the target is the one last written to. One that was restored from a backup tells an older time."""
        if await self._target.marker() != lead.marker:
            return False
        told = lead.synchronized_on
        return told is None or (await self._target.synchronized_on() or 0) >= _unix_ms(told)

    async def _begin_anew(self, lead: Lead) -> None:
        """The target is new, was flushed, or is another one: all is applied again, while changes go on."""
        await self._require_all_rows(lead)
        await lead.restart()
        lead.require()
        await self._target.mark(lead.marker)
        if await self._is_empty():
            await lead.swept()
        log.info("projection_begun_anew", projection=self._projection.name)

    async def _require_all_rows(self, lead: Lead) -> None:
        """Raises `StoreUnavailableError` while a copy from another cell goes on, or was interrupted.

        Whoever is not copied yet would be swept from the target.
        """
        environment = self._projection.environment
        begun_at = await self._feed.copy_begun_at(environment)
        if begun_at is not None:
            why = f"its copy from another cell, begun at {begun_at:%Y-%m-%dT%H:%M:%SZ}, has not come to its end"
            await lead.tell(0, None, None, f"environment {environment}: {why}")
            raise StoreUnavailableError(f"environment {environment}", f"{why}: wait, or run `cohort-sync copy` again")

    async def _is_empty(self) -> bool:
        """Whether nothing stands in the target, so that there is nothing to sweep either."""
        async for page in self._target.references():
            if page:
                return False
        return True

    async def _apply_next(self, lead: Lead, progress: Progress, pages: _ReadAhead) -> bool:
        """Applies a page. True at the end of the feed."""
        page, at = await pages.next(lead.cursor, progress.latest)
        if page.cursor != lead.cursor:
            refused: list[Reference] = []
            for changes in in_parts(page.changes, APPLIED_AT_ONCE):
                self._require(lead)
                try:
                    refused += await self._target.apply(changes)
                except TargetDamagedError:
                    await self._begin_anew(lead)
                    raise
            await self._save(lead, page.cursor)
            self._metrics.applied(self._projection.name, len(page.changes) - len(refused))
            self._tell_of_refused(refused)
        if page.is_last and at is not None and lead.is_swept:
            progress.applied_to(at)
        return page.is_last

    async def _sweep(self, lead: Lead) -> AsyncIterator[None]:
        """Takes out what belongs to nobody, a page at each step: only we write, so what is extra now stays so."""
        audit = Audit(self._feed, self._target, self._projection.environment, settle=_at_once)
        async for differences in audit.extra():
            if differences:
                await self._require_all_rows(lead)
                self._require(lead)
                await self._target.remove([each.reference for each in differences])
                await self._save(lead, lead.cursor)
                log.info("projection_swept", projection=self._projection.name, references=len(differences))
            yield
        await lead.swept()

    def _require(self, lead: Lead) -> None:
        """Before each write to the target. Until the cursor is saved, it may be somebody else's turn to write."""
        lead.require()
        self._unsure = lead.epoch, lead.cursor

    async def _save(self, lead: Lead, cursor: Cursor) -> None:
        await lead.save(cursor)
        self._unsure = None

    def _tell_of_refused(self, refused: Sequence[Reference]) -> None:
        name = self._projection.name
        for segment, generation, context in refused:
            log.error(
                "projection_item_too_large", projection=name, segment=segment, generation=generation, context=context
            )
        self._metrics.refused(name, len(refused))

    async def _tell(self, lead: Lead, progress: Progress) -> None:
        position = progress.latest
        if position is None:
            return
        said = self._freshness(progress, position.at)
        lead.require()
        if said.synchronized_on is not None and not await self._target.synchronize(_unix_ms(said.synchronized_on)):
            return  # flushed just now: the next round sees it
        caught_up_at = progress.applied.at if progress.applied else None
        applied_before = progress.applied.horizon if progress.applied else 0
        await lead.tell(applied_before, caught_up_at, said.synchronized_on, said.stopped)
        self._metrics.told(self._projection.name, position.at, caught_up_at, said.synchronized_on)

    def _freshness(self, progress: Progress, now: datetime) -> Freshness:
        return freshness(
            progress.whole,
            feeds=self._projection.feeds,
            now=now,
            limit_s=self._projection.freshness_s,
        )


class _ReadAhead:
    """Pages of the change feed, of which the next is read while one is applied."""

    def __init__(self, feed: ChangeFeed, environment: str) -> None:
        self._feed = feed
        self._environment = environment
        self._after: Cursor | None = None
        self._at: FeedPosition | None = None
        self._reading: asyncio.Task[Page] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._drop()

    async def next(self, after: Cursor, latest: FeedPosition | None) -> tuple[Page, FeedPosition | None]:
        """The page behind this cursor, and a moment that had passed when it was read."""
        if self._reading is None or self._after != after:
            await self._drop()
            self._reading = self._read(after, latest)
        page, at = await self._reading, self._at
        self._reading = None if page.is_last else self._read(page.cursor, latest)
        return page, at

    def _read(self, after: Cursor, latest: FeedPosition | None) -> asyncio.Task[Page]:
        self._after, self._at = after, latest
        return asyncio.create_task(self._feed.page(after, self._environment))

    async def _drop(self) -> None:
        """What was read ahead is not wanted any more, whatever came of it."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None


async def _at_once() -> None:
    """Whoever applies has not to wait until it is applied."""


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


async def until_in(feed: ChangeFeed, health: Health, targets: Mapping[str, AuditableTarget]) -> None:
    """Returns once everything that is committed now is in each of these targets, by the names of their projections.

    Raises `StoreRefusedError` where that is so of another target, which another process keeps under the name.
    """
    await until_caught_up(feed, health, targets)
    for name, target in targets.items():

        async def is_kept(name: str = name, target: AuditableTarget = target) -> bool:
            return await target.marker() == await feed.marker(name)

        for _ in range(OTHERS_LOOK_S):  # one that was flushed just now is begun anew first
            if await until_available(health, f"projection {name}", is_kept):
                break
            await asyncio.sleep(1)
        else:
            raise StoreRefusedError(
                f"projection {name}: another process keeps another target in step under this name. Give the "
                "projection the same target everywhere, or a name of its own"
            )


async def until_caught_up(feed: ChangeFeed, health: Health, names: Collection[str]) -> None:
    """Returns once everything that is committed now is in the targets of these projections, whoever put it there."""
    end = await until_available(health, "postgres", feed.next_xid)

    async def are_applied() -> bool:
        return all([await feed.is_applied(name, end) for name in names])

    while True:
        if await until_available(health, "postgres", are_applied):
            return
        await asyncio.sleep(IDLE_S)
