"""Later: what can't be done now is tried again, with the data where it is, for as long as it takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from consumers.errors import KafkaUnavailableError
from stores.errors import StoreError, StoreUnavailableError
from worker.health import Health

log = structlog.get_logger(__name__)

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0

T = TypeVar("T")


def waits_s() -> Iterator[float]:
    """Doubling waits up to a bound, each with jitter, so that many workers don't come back in step. Never ends."""
    wait_s = FIRST_WAIT_S
    while True:
        yield wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret depends on it
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


async def until_available(health: Health, dependency: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeats a call of the store or of Kafka until it is available; readiness tells of it meanwhile.

    Only what may pass later is tried again; every other error comes out.
    """
    for wait_s in waits_s():
        try:
            result = await attempt()
        except (StoreUnavailableError, KafkaUnavailableError) as exc:
            health.check_failed(dependency, exc.cause)
            log.warning("dependency_awaited", dependency=dependency, cause=exc.cause, retry_after_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)
        else:
            health.check_passed(dependency)
            return result
    raise AssertionError  # waits_s never ends


async def ask_store(health: Health, question: Callable[[], Awaitable[T]]) -> T | None:
    """The store's answer, or None where it has none; readiness tells which. It does not wait."""
    try:
        answer = await question()
    except StoreUnavailableError as exc:
        health.check_failed("postgres", exc.cause)
    except StoreError as exc:
        health.check_failed("postgres", type(exc).__name__)
    else:
        health.check_passed("postgres")
        return answer
    return None
