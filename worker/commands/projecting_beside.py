"""Projectors beside a command that needs what they do: where none runs elsewhere, these apply what is to be applied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from stores.postgres.change_feed import ChangeFeed
from stores.target import AuditableTarget
from worker.commands.frame import CommandError
from worker.health import Health
from worker.logs import setup_logging
from worker.projecting import projection_of, target_of
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projector, until_in
from worker.settings import ProjectionSettings, Settings

SETTLE_S = 3_600.0
"""A rebuild of hundreds of millions of memberships takes less."""


class Beside:
    """The change feed, and by the names of their projections the targets that it is applied to meanwhile."""

    def __init__(self, feed: ChangeFeed, targets: Mapping[str, AuditableTarget]) -> None:
        self.feed = feed
        self.targets = targets

    async def settled(self, *names: str) -> None:
        """Returns once everything that is committed now is in these targets; in all of them where none is named."""
        asked = {name: self.targets[name] for name in names or self.targets}
        try:
            async with asyncio.timeout(SETTLE_S):
                await until_in(self.feed, Health(()), asked)
        except TimeoutError:
            raise CommandError(
                f"{', '.join(asked)} did not catch up within {SETTLE_S:,.0f} s: `cohort-sync status` says why"
            ) from None


@asynccontextmanager
async def projecting(settings: Settings, projections: Sequence[ProjectionSettings]) -> AsyncIterator[Beside]:
    """Projectors for these, until it is left. What ends one of them ends the command."""
    setup_logging(format=settings.logging.format, level="warning")
    names = [projection.name for projection in projections]
    metrics, health = ProjectionMetrics(names), Health(())
    async with AsyncExitStack() as stack:
        feed = await stack.enter_async_context(ChangeFeed(settings.postgres.url))
        await feed.require_schema()
        # Each is opened twice: the command's own use of a target and the projector's don't disturb each other.
        own, theirs = [{each.name: target_of(each) for each in projections} for _ in range(2)]
        for target in (*own.values(), *theirs.values()):
            await stack.enter_async_context(target)
        running = await stack.enter_async_context(asyncio.TaskGroup())
        for each in projections:
            projector = Projector(
                projection_of(settings, each), feed=feed, target=theirs[each.name], metrics=metrics, health=health
            )
            stack.callback(running.create_task(projector.run(), name=f"projector-{each.name}").cancel)
        yield Beside(feed, own)
