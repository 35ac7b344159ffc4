"""A simulation of one cell: partitions that fill, workers that empty them, and a primary that all workers share.

Deltas are a fluid and time goes in steps. Every partition is a queue; the age of what leaves it is its freshness. Only
where segments fall among partitions is chance, and seeded. Nothing fails and nothing rebalances here.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

HOUR_S = 3_600.0
SEGMENTS = 1_000
NOTHING = 1e-6
"""So few deltas are none: what is left of sums of fractions."""


class Scenario(NamedTuple):
    """An hour of one cell, or how long it is said to be. Rates are deltas a second."""

    deltas_a_second: float
    """The mean of the time."""
    partitions: int
    replicas: int
    replica_rate: float
    primary_rate: float
    burst_s: float = HOUR_S
    """All deltas come within so many seconds at the start."""
    hot_share: float = 0.0
    """Of the deltas, those of one segment, which all fall into one partition. The other segments are equal."""
    segments: int = SEGMENTS
    seconds: float = HOUR_S
    step_s: float = 1.0
    seed: int = 1


class Outcome(NamedTuple):
    """What came of it. Freshness is from arrival in Kafka to the commit, without the half second that a batch takes."""

    arrived: float
    stored: Sequence[float]
    """In all, after each step until nothing waited or came any more."""
    backlog: float
    """The largest, and what is left at the end."""
    backlog_left: float
    p99_s: float
    """Of what was stored."""
    worst_s: float
    """Of that, and of what still waits at the end."""
    busy: Sequence[float]
    """Of each replica, the deltas that it stored."""


def simulate(scenario: Scenario) -> Outcome:
    """Runs it."""
    shares, step_s = spread(scenario), scenario.step_s
    queues = [_Queue() for _ in shares]
    ages: defaultdict[float, float] = defaultdict(float)
    busy = [0.0] * scenario.replicas
    arrived = largest = 0.0
    stored: list[float] = []
    for step in range(round(scenario.seconds / step_s)):
        begun_s = step * step_s
        coming = _coming(scenario, begun_s)
        for queue, share in zip(queues, shares, strict=True):
            queue.put(begun_s, coming * share)
        arrived += coming
        largest = max(largest, sum(queue.waiting for queue in queues))
        taken = 0.0
        for place, deltas in enumerate(_served(scenario, [queue.waiting for queue in queues])):
            for since_s, amount in queues[place].take(deltas):
                busy[place % scenario.replicas] += amount
                taken += amount
                ages[begun_s + step_s - since_s] += amount
        stored.append((stored[-1] if stored else 0.0) + taken)
        if begun_s + step_s >= scenario.burst_s and not any(queue.waiting for queue in queues):
            break
    left_s = [scenario.seconds - queue.oldest_s for queue in queues if queue.waiting > NOTHING]
    return Outcome(
        arrived=arrived,
        stored=stored,
        backlog=largest,
        backlog_left=sum(queue.waiting for queue in queues),
        p99_s=percentile(ages, 0.99),
        worst_s=max([*ages, *left_s], default=0.0),
        busy=busy,
    )


def longest_wait(stored: Sequence[float], rate: float, step_s: float) -> float:
    """How many seconds what was stored waits at most for somebody who follows at this rate: a projector."""
    waiting = worst = 0.0
    for before, now in pairwise((0.0, *stored)):
        waiting = max(0.0, waiting + now - before - rate * step_s)
        worst = max(worst, waiting)
    return worst / rate


def spread(scenario: Scenario) -> list[float]:
    """What share of the deltas each partition gets: each segment's go where its key's hash says."""
    chance = random.Random(scenario.seed)
    shares = [0.0] * scenario.partitions
    for _ in range(scenario.segments):
        shares[chance.randrange(scenario.partitions)] += (1 - scenario.hot_share) / scenario.segments
    shares[0] += scenario.hot_share
    return shares


def share_out(capacity: float, wanted: Sequence[float]) -> list[float]:
    """To each what it wants, or an equal part where that is more than there is."""
    got = [0.0] * len(wanted)
    left = capacity
    hungry = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for behind, place in enumerate(hungry):
        got[place] = min(wanted[place], left / (len(hungry) - behind))
        left -= got[place]
    return got


def percentile(weights: Mapping[float, float], share: float) -> float:
    """The value that so large a share of the weight does not exceed."""
    needed = share * sum(weights.values())
    for value in sorted(weights):
        needed -= weights[value]
        if needed <= NOTHING:
            return value
    return 0.0


class _Queue:
    """One partition: when what arrived, oldest first."""

    def __init__(self) -> None:
        self._parcels = deque[tuple[float, float]]()
        self.waiting = 0.0

    @property
    def oldest_s(self) -> float:
        return self._parcels[0][0]

    def put(self, at_s: float, deltas: float) -> None:
        if deltas > 0:
            self._parcels.append((at_s, deltas))
            self.waiting += deltas

    def take(self, deltas: float) -> Iterator[tuple[float, float]]:
        """So many from its head, by when they arrived."""
        while deltas > 0 and self._parcels:
            at_s, there = self._parcels.popleft()
            amount = deltas if there > deltas + NOTHING else there
            deltas -= amount
            if there > amount:
                self._parcels.appendleft((at_s, there - amount))
            self.waiting = self.waiting - amount if self._parcels else 0.0
            yield at_s, amount


def _coming(scenario: Scenario, begun_s: float) -> float:
    """What arrives in the step that begins then."""
    burst_s = min(scenario.burst_s, scenario.seconds)
    rate = scenario.deltas_a_second * scenario.seconds / burst_s
    return rate * max(0.0, min(scenario.step_s, burst_s - begun_s))


def _served(scenario: Scenario, waiting: Sequence[float]) -> list[float]:
    """What leaves each partition in a step. A worker shares itself out among its own, the primary among the workers."""
    own = [range(worker, scenario.partitions, scenario.replicas) for worker in range(scenario.replicas)]
    a_step = scenario.replica_rate * scenario.step_s
    could = [min(a_step, sum(waiting[place] for place in places)) for places in own]
    may = share_out(scenario.primary_rate * scenario.step_s, could)
    served = [0.0] * scenario.partitions
    for places, deltas in zip(own, may, strict=True):
        for place, part in zip(places, share_out(deltas, [waiting[place] for place in places]), strict=True):
            served[place] = part
    return served
