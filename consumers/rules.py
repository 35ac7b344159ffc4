"""What the configuration says about every record, and which environment a record is for."""

from __future__ import annotations

from functools import lru_cache

from consumers.errors import Ignored, IgnoredRecord, InvalidRecord, Reason
from consumers.feeds import Environments, Feed, Limits
from consumers.values import MISSING

ENVIRONMENT_CHARACTERS = 256
_CACHED_ENVIRONMENTS = 1024


class Rules:
    """The same for all feeds and formats."""

    def __init__(self, *, limits: Limits, environments: Environments, skip_unknown_environment: bool = False) -> None:
        self.limits = limits
        self._environments = environments
        self._skip_unknown_environment = skip_unknown_environment
        self._known = lru_cache(maxsize=_CACHED_ENVIRONMENTS)(self._find)

    def environment(self, named: object, feed: Feed) -> str | None:
        """The environment that the payload names, or else the feed; None where nobody names one.

        Formats ask this before anything else that may fail: what is wrong with a record for an environment of another
        cell is for that cell to say.
        """
        if named is MISSING or named is None or named == "":
            if feed.environment is None:
                return None
            named = feed.environment
        elif isinstance(named, int) and not isinstance(named, bool):
            named = str(named)
        if not isinstance(named, str) or len(named) > ENVIRONMENT_CHARACTERS:
            raise _unknown(f"its name is no text of at most {ENVIRONMENT_CHARACTERS} characters")
        known = self._known(named)
        if known is not None:
            return known
        if self._skip_unknown_environment:
            raise IgnoredRecord(Ignored.OTHER_ENVIRONMENT, named)
        raise _unknown("it is none of those configured")

    def environment_or_foreign(self, named: object, feed: Feed) -> str | None:
        """Likewise, where the tool may name a project of its own instead: what is none of ours, the feed decides."""
        return self._environments.find_listed(named) or self.environment(MISSING, feed)

    def _find(self, name: str) -> str | None:
        # With no environments listed any name is taken, but not one that no store could keep.
        return None if name.isspace() or "\0" in name else self._environments.find(name)


class OwnEnvironmentNamed(Exception):
    """The record says itself that it is for an environment of ours."""


class AskedForEnvironment(Rules):
    """Lets a format go no further than to the environment, to see whether it finds one of ours."""

    def environment(self, named: object, feed: Feed) -> str | None:
        """Raises `OwnEnvironmentNamed`, or what it would raise otherwise."""
        super().environment(named, feed)
        raise OwnEnvironmentNamed

    def environment_or_foreign(self, named: object, feed: Feed) -> str | None:
        """Likewise."""
        super().environment_or_foreign(named, feed)
        raise OwnEnvironmentNamed


def _unknown(why: str) -> InvalidRecord:
    return InvalidRecord(Reason.ENVIRONMENT_UNKNOWN, f"the record is for an environment that is unknown here: {why}")
