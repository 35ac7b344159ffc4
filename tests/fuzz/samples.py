"""Payloads to begin with, each as its text and where in it every value, member and name stands.

With the places known, a change of the structure is a change of the text: nothing is decoded and encoded again, so a
second has time for tens of thousands of inputs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

GOLDEN = Path(__file__).parents[1] / "golden"

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')

Span = tuple[int, int]


class Sample(NamedTuple):
    """A payload. `values` has everything that is one, `items` the members of objects and lists, `names` the names."""

    text: bytes
    values: list[Span]
    items: list[Span]
    names: list[Span]

    def value(self, number: int) -> bytes:
        start, stop = self.values[number]
        return self.text[start:stop]


def sample_of(payload: object) -> Sample:
    return scanned(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())


def scanned(text: bytes) -> Sample:
    """The sample of this text, which must be JSON."""
    values: list[Span] = []
    items: list[Span] = []
    names: list[Span] = []
    open_at: list[tuple[bytes, int]] = []
    name_at = -1
    waiting: list[int] = []  # where the name of each open member stands, or -1 in a list
    tokens = [(found[0], found.start(), found.end()) for found in _TOKEN.finditer(text)]
    for (token, begin, stop), (following, _, _) in zip(tokens, [*tokens[1:], (b"", 0, 0)], strict=True):
        start = begin
        if following == b":":
            names.append((start, stop))
            name_at = start
        elif token in b"{[":
            open_at.append((token, start))
            waiting.append(name_at)
            name_at = -1
        elif token not in b":,":
            if token in b"}]":
                start, name_at = open_at.pop()[1], waiting.pop()
            values.append((start, stop))
            if open_at:
                items.append((start if name_at < 0 else name_at, stop))
            name_at = -1
    return Sample(text, values, items, names)


def golden_samples(formats: list[str]) -> dict[str, list[Sample]]:
    """The golden payloads of each format."""
    samples: dict[str, list[Sample]] = {name: [] for name in formats}
    for path in sorted(GOLDEN.glob("*/*.json")):
        if path.parent.name in samples:
            samples[path.parent.name].append(sample_of(json.loads(path.read_text())["payload"]))
    return samples
