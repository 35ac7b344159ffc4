"""A seeded stream of records of all formats. Each is made from its meaning, so nobody has to parse it to know that."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

HEADER = "campaign-number"
"""Says which record of the stream it is, wherever and however often it stands in a topic."""

CONTEXTS = 3_000
TEN_YEARS_US = 315_576_000_000_000
SPREAD_MS = 20_000
"""Record times go back and forth by so much."""
SESSION_EVERY = 40
MOST_MEMBERS = 40
MIXPANEL_COHORTS = tuple("pqrstuvw")
"""So many that the last full copy of some is one that must not count."""
LARGE_EVERY = 500
LARGE_BYTES = 1_500_000
"""More than a worker fetches of a partition at first."""


class Said(NamedTuple):
    """One member joins or leaves. Without a clock of the source its record's time counts."""

    segment: str
    context_key: str
    included: bool
    clock_us: int | None = None


class Clears(NamedTuple):
    """A drain, or with a session one of its pages."""

    segment: str
    session: str | None = None
    page: int = 1
    pages: int = 1


class Meaning(NamedTuple):
    """What a record means: in its order, what it says of members; what it clears; why parts of it are dead letters."""

    said: tuple[Said, ...] = ()
    clears: Clears | None = None
    dead: frozenset[str] = frozenset()


class Made(NamedTuple):
    """One record of the stream."""

    number: int
    topic: str
    partition: int
    timestamp_ms: int
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    meaning: Meaning


class Topics(NamedTuple):
    """Topic names by what they carry. The last one carries any format, named by a header."""

    webhook: str
    amplitude: str
    segment: str
    any: str

    def partitions(self) -> dict[str, int]:
        return {self.webhook: 4, self.amplitude: 2, self.segment: 2, self.any: 4}


class Stream:
    """The same records for the same seed and start, in the same order."""

    def __init__(self, seed: int, topics: Topics, *, start_ms: int) -> None:
        self._random = random.Random(seed)
        self._topics = topics
        self._partitions = topics.partitions()
        self._start_ms = start_ms
        self._sessions = 0

    def __iter__(self) -> Iterator[Made]:
        number = 0
        while True:
            for topic, value, integration, meaning in self._next(number):
                yield self._record(number, topic, value, integration, meaning)
                number += 1

    def _next(self, number: int) -> Iterator[tuple[str, bytes | None, str | None, Meaning]]:
        """One record, or all pages of a session, each with the topic and the header that it needs."""
        if number % SESSION_EVERY == SESSION_EVERY - 1:
            yield from self._session()
            return
        make = self._random.choice(
            (self._webhook, self._webhook, self._amplitude, self._identify, self._identify, self._heap, self._hightouch,
             self._mixpanel, self._mparticle, self._bad)
        )  # fmt: skip
        yield make()

    def _record(self, number: int, topic: str, value: bytes | None, integration: str | None, meaning: Meaning) -> Made:
        roll = self._random
        # Some tie exactly, some are far out of order.
        at = self._start_ms + number * 2 + roll.choice((0, 0, -roll.randint(0, SPREAD_MS), roll.randint(0, 5)))
        headers = [(HEADER, str(number).encode())]
        if integration:
            headers.append(("integration", integration.encode()))
        partition = roll.randrange(self._partitions[topic])
        return Made(number, topic, partition, at, value, tuple(headers), meaning)

    def _keys(self) -> list[str]:
        count = self._random.choice((1, 2, 5, MOST_MEMBERS))
        return [f"u{self._random.randrange(CONTEXTS)}" for _ in range(count)]

    def _clock_s(self) -> int:
        seconds = self._start_ms // 1000 + self._random.randint(-30, 30)
        return seconds + TEN_YEARS_US // 1_000_000 if self._random.random() < 0.02 else seconds

    def _webhook(self) -> tuple[str, bytes, None, Meaning]:
        cohort, included, seconds = self._random.choice("abc"), self._random.random() < 0.6, self._clock_s()
        keys = self._keys()
        users: list[dict[str, Any]] = [{"user_id": key} for key in keys]
        dead = frozenset[str]()
        if self._random.random() < 0.1:
            users.insert(self._random.randrange(len(users) + 1), {"user_id": 4.2})
            dead = frozenset({"context_key_invalid"})
        payload = {"cohort_id": cohort, "in_cohort": included, "computed_time": str(seconds), "users": users}
        if self._random.randrange(LARGE_EVERY // 5) == 0:  # a webhook is every fifth record
            payload["padding"] = "x" * LARGE_BYTES
        said = tuple(Said(f"amplitude-{cohort}", key, included, seconds * 1_000_000) for key in keys)
        return self._topics.webhook, _json(payload), None, Meaning(said, dead=dead)

    def _amplitude(self) -> tuple[str, bytes, None, Meaning]:
        batch, said = [], []
        for key in self._keys():
            cohort, included = self._random.choice("bcd"), self._random.random() < 0.5
            batch.append({"userId": key, "cohortId": cohort, "cohortName": "Any", "value": included})
            said.append(Said(f"amplitude-{cohort}", key, included))
        return self._topics.amplitude, _json({"batch": batch}), None, Meaning(tuple(said))

    def _identify(self) -> tuple[str, bytes, None, Meaning]:
        (key, *_), audience, included, seconds = self._keys(), self._random.choice("xy"), self._random.random() < 0.6, 0
        seconds = self._clock_s()
        personas = {"computation_class": "audience", "computation_id": audience, "computation_key": "k"}
        event = {
            "type": "identify",
            "userId": key,
            "traits": {"k": included},
            "context": {"personas": personas},
            "timestamp": datetime.fromtimestamp(seconds, UTC).isoformat(),
        }
        said = Said(f"segment-audiences-{audience}", key, included, seconds * 1_000_000)
        return self._topics.segment, _json(event), None, Meaning((said,))

    def _heap(self) -> tuple[str, bytes, str, Meaning]:
        segment = f"heap-inbound-{(cohort := self._random.choice((7, 8)))}"
        data: dict[str, Any] = {"segment": {"id": cohort, "name": "Heap"}}
        if self._random.random() < 0.05:
            body = {"action_type": "segment.users.drain", "data": data}
            return self._topics.any, _json(body), "heap-inbound", Meaning(clears=Clears(segment))
        add, remove = self._keys(), self._keys()
        data |= {"add": [{"id": key} for key in add], "remove": [{"id": key} for key in remove]}
        said = [Said(segment, key, included=True) for key in add] + [
            Said(segment, key, included=False) for key in remove
        ]
        return (
            self._topics.any,
            _json({"action_type": "segment.users.sync", "data": data}),
            "heap-inbound",
            Meaning(tuple(said)),
        )

    def _hightouch(self) -> tuple[str, bytes, str, Meaning]:
        included, keys = self._random.random() < 0.6, self._keys()
        action = self._random.choice(("add", " ADD") if included else ("remove", "Remove"))
        members = [{"integration_distinct_id": key} for key in keys]
        payload = {"cohortId": "h", "cohortName": "H", "action": action, "members": members}
        said = tuple(Said("hightouch-h", key, included) for key in keys)
        return self._topics.any, _json(payload), "hightouch", Meaning(said)

    def _mixpanel(self) -> tuple[str, bytes, str, Meaning]:
        included, keys, cohort = self._random.random() < 0.6, self._keys(), self._random.choice(MIXPANEL_COHORTS)
        action = "add_members" if included else "remove_members"
        said = tuple(Said(f"mixpanel-{cohort}", key, included) for key in keys)
        return self._topics.any, _mixpanel(cohort, action, keys), "mixpanel", Meaning(said)

    def _mparticle(self) -> tuple[str, bytes, str, Meaning]:
        seconds, profiles, said = self._clock_s(), [], []
        for key in self._keys():
            included = self._random.random() < 0.6
            action = "add" if included else "delete"
            identities = [{"type": "customer", "encoding": "raw", "value": key}]
            profiles.append({"user_identities": identities, "audiences": [{"audience_id": 5, "action": action}]})
            said.append(Said("mparticle-5", key, included, seconds * 1_000_000))
        message = {
            "type": "audience_membership_change_request",
            "timestamp_ms": seconds * 1000,
            "user_profiles": profiles,
        }
        return self._topics.any, _json(message), "mparticle", Meaning(tuple(said))

    def _bad(self) -> tuple[str, bytes | None, str | None, Meaning]:
        value, reason = self._random.choice(
            ((b"{", "json_invalid"), (None, "value_empty"), (b"[1]", "payload_invalid"), (b"{}", "no_members_field"))
        )
        return self._topics.any, value, "hightouch", Meaning(dead=frozenset({_reason_of(value, reason)}))

    def _session(self) -> Iterator[tuple[str, bytes, str, Meaning]]:
        """A full copy in pages, in any order; one of five lacks a page, one of five has a page twice."""
        self._sessions += 1
        session, pages, chance = f"s{self._sessions}", self._random.randint(1, 4), self._random.random()
        segment = f"mixpanel-{(cohort := self._random.choice(MIXPANEL_COHORTS))}"
        numbers = list(range(1, pages + 1))
        self._random.shuffle(numbers)
        if chance < 0.2:
            numbers.pop()
        elif chance < 0.4:
            numbers.append(numbers[0])
        for number in numbers:
            keys: list[object] = [*self._keys(), *self._keys()]
            said = tuple(Said(segment, str(key), included=True) for key in keys)
            page = Clears(segment, session, number, pages)
            meaning = Meaning(said, page)
            if self._random.random() < 0.1:  # a page that is not understood as a whole does not count
                keys.append(4.2)
                meaning = Meaning(said, dead=frozenset({"context_key_invalid", "replace_incomplete"}))
            yield self._topics.any, _mixpanel(cohort, "members", keys, page), "mixpanel", meaning


def _mixpanel(cohort: str, action: str, keys: Sequence[object], page: Clears | None = None) -> bytes:
    parameters: dict[str, Any] = {
        "mixpanel_project_id": "1",
        "mixpanel_cohort_id": cohort,
        "mixpanel_cohort_name": cohort,
        "mixpanel_session_id": page.session if page else "changes",
        "members": [{"mixpanel_distinct_id": key} for key in keys],
    }
    if page:
        parameters["page_info"] = {"total_pages": page.pages, "page_count": page.page}
    return _json({"action": action, "parameters": parameters})


def _reason_of(value: bytes | None, reason: str) -> str:
    # Hightouch asks for the action before it looks for members.
    return "unknown_action" if value == b"{}" else reason


def _json(payload: object) -> bytes:
    return json.dumps(payload).encode()
