"""What is fed: a value made from a seed, and the feed and the settings by which it is read."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import msgspec

from consumers.feeds import ContextKeyRule, Environment, Environments, Feed, Limits
from consumers.formats import HEADER, Format, Formats, known_integrations
from consumers.normalize import Normalizer
from consumers.parsed import Parsed
from consumers.record import Record
from consumers.rules import Rules
from tests.fuzz.mutations import mutated, one_of
from tests.fuzz.samples import Sample, golden_samples, scanned

NOW_MS = 1_700_000_000_000

_FEEDS_A_FORMAT = 40
_MOST_GROWN = 200
_LARGEST_GROWN_BYTES = 3_000
_OWN_SHARE, _GROWN_SHARE, _HEADER_SHARE = 0.8, 0.02, 0.1

_LISTED = Environments(
    (Environment(key="production", client_side_id="test-client-id"), Environment(key="staging", project="7"))
)
_ENVIRONMENTS = {"none listed": Environments(), "listed": _LISTED}
_LIMITS = (
    *(Limits(),) * 12,
    *(Limits(context_key_bytes=16), Limits(context_key_bytes=2_048), Limits(json_depth=4), Limits(json_depth=500)),
    *(Limits(record_bytes=1_024), Limits(future_skew_s=0)),
)
_RULES = (
    *(str(ContextKeyRule.USER_ID),) * 6,
    *map(str, ContextKeyRule),
    "customer",
    "customer_or_email:md5",
    "mpid",
    "email:sha256",
    "other_or_mpid",
)
_SETTINGS: dict[str, tuple[str | None, ...]] = {
    "environment": (*("production",) * 8, "staging", "elsewhere", None),
    "cohort_id": (None, None, "c9", "a cohort/é"),
    "cohort_name": (None, "Nine"),
}


class Readers(NamedTuple):
    """Who reads a record: as it is always done, and member by member, with the same result."""

    usual: Normalizer
    long_way: Normalizer


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker is configured to read a record."""

    environments: str
    limits: Limits
    skip_unknown_environment: bool

    def readers(self, formats: Formats, long_ways: Formats) -> Readers:
        return Readers(self._normalizer(formats), self._normalizer(long_ways))

    def _normalizer(self, formats: Formats) -> Normalizer:
        return Normalizer(
            environments=_ENVIRONMENTS[self.environments],
            limits=self.limits,
            skip_unknown_environment=self.skip_unknown_environment,
            formats=formats,
        )


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what becomes of one record. Its format is `integration`, also where only its header says so."""

    number: int
    integration: str
    value: bytes
    feed: Feed
    setting: Setting
    headers: tuple[tuple[str, bytes], ...] = ()

    def record(self) -> Record:
        return Record("fuzz", 0, self.number, NOW_MS, None, self.value, self.headers)


class _LongWay(NamedTuple):
    name: str
    parse: Callable[[bytes, Feed, Rules], Parsed]


class LongWays(Formats):
    """All formats without their short ways."""

    def find(self, name: str) -> Format | None:
        known: Any = super().find(name)
        return _LongWay(known.name, known.parse_each) if hasattr(known, "parse_each") else known


class Inputs:
    """Inputs from a seed: the same ones each time. Every format gets an even share."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._formats = known_integrations()
        self._golden = golden_samples(self._formats)
        self._grown: dict[str, list[Sample]] = {name: list(own) for name, own in self._golden.items()}
        self._all = [sample for own in self._golden.values() for sample in own]
        self._feeds = {name: [self._feed(name) for _ in range(_FEEDS_A_FORMAT)] for name in (*self._formats, HEADER)}
        settings = [
            Setting(environments=environments, limits=limits, skip_unknown_environment=skip)
            for environments in ("none listed", "none listed", "listed")
            for limits in _LIMITS
            for skip in (False, True)
        ]
        formats, long_ways = Formats(), LongWays()
        self._settings = [(setting, setting.readers(formats, long_ways)) for setting in settings]

    def made(self, number: int) -> tuple[Input, Readers]:
        """The next input, and those who read it."""
        random = self._random
        name = one_of(random, self._formats)
        sample = one_of(random, self._grown[name] if random.random() < _OWN_SHARE else self._all)
        donor = one_of(random, self._golden[name] if random.random() < _OWN_SHARE else self._all)
        setting, readers = one_of(random, self._settings)
        by_header = random.random() < _HEADER_SHARE
        made = Input(
            number=number,
            integration=name,
            value=mutated(random, sample, donor),
            feed=one_of(random, self._feeds[HEADER if by_header else name]),
            setting=setting,
            headers=(("integration", name.upper().encode()),) if by_header else (),
        )
        return made, readers

    def said_something(self, made: Input) -> None:
        """An input was read. Some of those become samples themselves, so that changes add up."""
        if self._random.random() > _GROWN_SHARE or len(made.value) > _LARGEST_GROWN_BYTES:
            return
        try:
            msgspec.json.decode(made.value)
        except (msgspec.DecodeError, RecursionError):
            return  # what no format looks at may be no JSON
        grown, golden, sample = self._grown[made.integration], self._golden[made.integration], scanned(made.value)
        if len(grown) < len(golden) + _MOST_GROWN:
            grown.append(sample)
        else:
            grown[len(golden) + int(self._random.random() * _MOST_GROWN)] = sample

    def _feed(self, name: str) -> Feed:
        chosen: dict[str, Any] = {setting: one_of(self._random, values) for setting, values in _SETTINGS.items()}
        return Feed(
            name="fuzz",
            format=name,
            topics=("fuzz",),
            context_kind=one_of(self._random, ("user", "account")),
            context_key=one_of(self._random, _RULES),
            **chosen,
        )
