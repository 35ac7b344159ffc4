"""The formats by name: what `feeds[].format` and the header `integration` may say."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Protocol

from consumers import manifest
from consumers.amplitude_webhook import AmplitudeWebhook
from consumers.feeds import Feed
from consumers.mparticle import MParticle
from consumers.parsed import Parsed
from consumers.rudderstack_event import RudderstackEvent
from consumers.rules import Rules
from consumers.twilio_segment import TwilioSegment

HEADER = "header"
"""The format of a feed whose records say theirs themselves, in the header `integration`."""


class Format(Protocol):
    """One wire format."""

    @property
    def name(self) -> str:
        """As configuration and headers call it, in the spelling that counts."""

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """What a record of this value means.

        The value is UTF-8, neither empty nor too large nor nested too deep, and has no byte order mark. The environment
        is determined before anything else may fail. What is wrong with one member is a reject at its place; what is
        wrong with all of it raises InvalidRecord, or IgnoredRecord where nothing is. No detail quotes the payload.
        """


class Formats:
    """All formats that are known: those of the project, and those of the user's manifests, which win."""

    def __init__(self, manifests: Iterable[Path] = ()) -> None:
        event_formats: list[Format] = [TwilioSegment(), AmplitudeWebhook(), RudderstackEvent(), MParticle()]
        built_in = [*event_formats, *map(manifest.load, _own_manifests())]
        self._formats = {known.name.casefold(): known for known in (*built_in, *map(manifest.load, manifests))}

    def find(self, name: str) -> Format | None:
        """The format of this name, matched without case."""
        return self._formats.get(name) or self._formats.get(name.casefold())

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(known.name for known in self._formats.values())


def known_integrations(manifests: Iterable[Path] = ()) -> list[str]:
    """What `feeds[].format` may say besides `header`."""
    return Formats(manifests).names()


def _own_manifests() -> list[Path]:
    # The package is always installed as files, so its data has paths.
    folder = Path(str(resources.files("consumers") / "integrations"))
    return sorted(folder.glob("*.json"))
