"""Has each input read as a record, and looks at what it becomes."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from consumers.errors import InvalidRecord
from consumers.formats import Formats
from consumers.normalize import Normalized, Normalizer
from tests.fuzz.inputs import NOW_MS, Input, Inputs, LongWays, Readers
from tests.fuzz.promises import BrokenPromiseError, Promises

_POSITION = 7


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
    """Reads what a seed gives, and counts what it comes to."""

    def __init__(self, seed: int) -> None:
        self._inputs = Inputs(seed)
        self._promises = Promises()
        self.outcomes: dict[str, int] = dict.fromkeys(("read", "ignored", "refused", "broken"), 0)

    def findings(self, inputs: int) -> Iterator[Finding | None]:
        """What each of so many inputs shows: a broken promise, or nothing."""
        for number in range(inputs):
            yield self.tried(*self._inputs.made(number))

    def tried(self, made: Input, readers: Readers) -> Finding | None:
        """Reads this input, and looks whether any promise is broken."""
        try:
            self.outcomes[self._outcome(made, readers)] += 1
        except BrokenPromiseError as broken:
            finding = Finding(made, str(broken), "")
        except Exception as exc:  # noqa: BLE001 - that is what is looked for
            finding = Finding(made, f"{type(exc).__name__} is not caught", traceback.format_exc())
        else:
            return None
        self.outcomes["broken"] += 1
        return finding

    def _outcome(self, made: Input, readers: Readers) -> str:
        try:
            result = _read(made, readers.usual)
        except InvalidRecord as problem:
            self._promises.refused(made, problem.detail)
            return "refused"
        self._promises.kept(made, result)
        if result.groups or result.clearing:
            self._promises.same(result, partial(_read, made, readers.long_way))
            self._inputs.said_something(made)
        return "read" if result.ignored is None else "ignored"


def _read(made: Input, normalizer: Normalizer) -> Normalized:
    return normalizer.normalize(made.record(), made.feed, arrived_ms=NOW_MS, position=_POSITION)


def tried_again(path: Path) -> Finding | None:
    """What a saved finding shows now."""
    made = msgspec.convert(json.loads(path.read_text())["input"], Input)
    return Fuzz(0).tried(made, made.setting.readers(Formats(), LongWays()))
