"""What the one action of a record does to the members that it lists."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import re2

from consumers.errors import InvalidValue, Reason


class Action(StrEnum):
    """The closed set: nothing else can be meant by an action."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    """The members are all that the cohort has, or a page of them."""
    DRAIN = "drain"
    """The cohort has no members any more."""
    IGNORE = "ignore"
    """Nobody joins or leaves."""
    LISTS = "lists"
    """Each list of members says itself what it does."""


class Actions(Protocol):
    """How one integration calls its actions."""

    def meaning(self, value: object, pointer: str) -> Action:
        """What is to be done. Raises `InvalidValue` for what says nothing."""


class ActionWords:
    """Each action by its word, whatever its case and the spaces around it. Any other word is refused."""

    def __init__(self, words: Mapping[str, Action]) -> None:
        self._words = {folded(word): action for word, action in words.items()}

    def meaning(self, value: object, pointer: str) -> Action:
        """See `Actions.meaning`."""
        action = self._words.get(folded(_text(value, pointer)))
        if action is None:
            raise InvalidValue(Reason.UNKNOWN_ACTION, f"{pointer} is none of the actions that the integration has")
        return action


class ActionMatcher:
    """LaunchDarkly's own rule: what the pattern matches adds, and all else removes. Raises ValueError for a bad one.

    The pattern comes from a manifest and the text from the internet, so RE2 runs it: in linear time, whatever they are.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise ValueError("matches every action, so that nobody could ever leave")
        options = re2.Options()
        options.log_errors = False
        try:
            self._pattern = re2.compile(pattern, options)
        except re2.error as exc:
            reason = exc.args[0].decode() if exc.args and isinstance(exc.args[0], bytes) else exc
            raise ValueError(f"is no pattern of RE2: {reason}") from None

    def meaning(self, value: object, pointer: str) -> Action:
        """See `Actions.meaning`."""
        return Action.ADD if self._pattern.search(_text(value, pointer)) else Action.REMOVE


def folded(word: str) -> str:
    """The word without what makes no difference."""
    return word.strip().casefold()


def _text(value: object, pointer: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(Reason.UNKNOWN_ACTION, f"{pointer} is missing or not a string")
    return value
