"""Makes inputs, one after the other from one seed, has each read as a record, and looks at what it becomes."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from consumers.errors import InvalidRecord
from consumers.feeds import ContextKeyRule, Environment, Environments, Feed, Limits
from consumers.formats import HEADER, known_integrations
from consumers.normalize import Normalized, Normalizer
from consumers.record import Record
from tests.fuzz.mutations import mutated, one_of
from tests.fuzz.promises import NOW_MS, BrokenPromiseError, Promises
from tests.fuzz.samples import Sample, golden_samples, scanned

_FEEDS_A_FORMAT = 40
_MOST_GROWN = 200
_LARGEST_GROWN_BYTES = 3_000
_OWN_SHARE, _GROWN_SHARE, _HEADER_SHARE = 0.8, 0.02, 0.1
_POSITION = 7

_LISTED = Environments(
    (Environment(key="production", client_side_id="test-client-id"), Environment(key="staging", project="7"))
)
_ENVIRONMENTS = {"none listed": Environments(), "listed": _LISTED}
_LIMITS = (
    *(Limits(), Limits(), Limits(), Limits(context_key_bytes=16), Limits(json_depth=4), Limits(record_bytes=400)),
    *(Limits(json_depth=100_000), Limits(context_key_bytes=2_048)),
)
_RULES = (*ContextKeyRule, "customer", "customer_or_email:md5", "mpid", "email:sha256", "other_or_mpid")
_SETTINGS: dict[str, tuple[str | None, ...]] = {
    "environment": ("production", "production", "production", "staging", "elsewhere", None, "", " "),
    "cohort_id": (None, None, "c9", "a cohort/é"),
    "cohort_name": (None, "Nine"),
}


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker is configured to read a record."""

    environments: str
    limits: Limits
    skip_unknown_environment: bool

    def normalizer(self) -> Normalizer:
        return Normalizer(
            environments=_ENVIRONMENTS[self.environments],
            limits=self.limits,
            skip_unknown_environment=self.skip_unknown_environment,
        )


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what becomes of one record."""

    number: int
    integration: str
    value: bytes
    feed: Feed
    setting: Setting
    headers: tuple[tuple[str, bytes], ...] = ()

    def record(self) -> Record:
        return Record("fuzz", 0, self.number, NOW_MS, None, self.value, self.headers)


class Finding(NamedTuple):
    """An input that breaks a promise."""

    input: Input
    problem: str
    trace: str

    def saved(self, folder: Path, seed: int) -> Path:
        """Where it now lies, to be read again."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{seed}-{self.input.number}.json"
        content = {"seed": seed, "problem": self.problem, "trace": self.trace, "input": msgspec.to_builtins(self.input)}
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path

    def described(self, seed: int) -> str:
        value = base64.b64encode(self.input.value).decode()
        return f"seed {seed}, input {self.input.number}, format {self.input.integration}: {self.problem}\n{value}"


class Fuzz:
    """Inputs from a seed: the same ones each time."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._formats = known_integrations()
        self._golden = golden_samples(self._formats)
        self._grown: dict[str, list[Sample]] = {name: list(own) for name, own in self._golden.items()}
        self._all = [sample for own in self._golden.values() for sample in own]
        self._feeds = {name: [self._feed(name) for _ in range(_FEEDS_A_FORMAT)] for name in self._formats}
        self._header_feeds = [self._feed(HEADER) for _ in range(_FEEDS_A_FORMAT)]
        settings = [
            Setting(environments=environments, limits=limits, skip_unknown_environment=skip)
            for environments in _ENVIRONMENTS
            for limits in _LIMITS
            for skip in (False, True)
        ]
        self._settings = [(setting, setting.normalizer()) for setting in settings]
        self._promises = Promises()
        self.outcomes: dict[str, int] = dict.fromkeys(("read", "ignored", "refused"), 0)
        """How many inputs came to what."""

    def findings(self, inputs: int) -> Iterator[Finding | None]:
        """What each of so many inputs shows: a broken promise, or nothing."""
        for number in range(inputs):
            made, normalizer = self._input(number)
            yield self.tried(made, normalizer)

    def tried(self, made: Input, normalizer: Normalizer) -> Finding | None:
        """Reads this input, and looks whether any promise is broken."""
        try:
            try:
                result = normalizer.normalize(made.record(), made.feed, arrived_ms=NOW_MS, position=_POSITION)
            except InvalidRecord as problem:
                self.outcomes["refused"] += 1
                self._promises.refused(made.value, problem.detail)
            else:
                self.outcomes["read" if result.ignored is None else "ignored"] += 1
                self._promises.kept(made.value, result, made.integration, made.setting.limits)
                self._grow(made, result)
        except BrokenPromiseError as broken:
            return Finding(made, str(broken), "")
        except Exception as exc:  # noqa: BLE001 - that is what is looked for
            return Finding(made, f"{type(exc).__name__} is not caught", traceback.format_exc())
        return None

    def _input(self, number: int) -> tuple[Input, Normalizer]:
        random = self._random
        name = one_of(random, self._formats)
        sample = one_of(random, self._grown[name] if random.random() < _OWN_SHARE else self._all)
        donor = one_of(random, self._golden[name] if random.random() < _OWN_SHARE else self._all)
        setting, normalizer = one_of(random, self._settings)
        feed, headers = one_of(random, self._feeds[name]), ()
        if random.random() < _HEADER_SHARE:
            feed, headers = one_of(random, self._header_feeds), (("integration", name.upper().encode()),)
        made = Input(
            number=number,
            integration=name,
            value=mutated(random, sample, donor),
            feed=feed,
            setting=setting,
            headers=headers,
        )
        return made, normalizer

    def _grow(self, made: Input, result: Normalized) -> None:
        """Some inputs that say something become samples themselves, so that changes add up."""
        if not result.groups or len(made.value) > _LARGEST_GROWN_BYTES or self._random.random() > _GROWN_SHARE:
            return
        grown, golden = self._grown[made.integration], len(self._golden[made.integration])
        with suppress(msgspec.DecodeError):  # what is not looked at may be no JSON
            msgspec.json.decode(made.value)
            sample = scanned(made.value)
            if len(grown) < golden + _MOST_GROWN:
                grown.append(sample)
            else:
                grown[golden + int(self._random.random() * _MOST_GROWN)] = sample

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


def tried_again(path: Path) -> Finding | None:
    """What a saved finding shows now."""
    made = msgspec.convert(json.loads(path.read_text())["input"], Input)
    return Fuzz(0).tried(made, made.setting.normalizer())
