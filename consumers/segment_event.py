"""One event of Twilio Segment as it lies on the wire, and who it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from consumers import values
from consumers.errors import InvalidValue, Reason
from consumers.feeds import ContextKeyRule
from consumers.values import MISSING, properties_of
from stores.model import Cohort


class Personas(msgspec.Struct, gc=False):
    """Which of Engage's computations an event comes from."""

    computation_class: Any = MISSING
    computation_id: Any = MISSING
    computation_key: Any = MISSING


class Context(msgspec.Struct, gc=False):
    """What surrounds an event. Only the parts that say which audience it is about."""

    personas: Personas | None = None
    integration: Any = MISSING
    traits: Any = MISSING


class Event(msgspec.Struct, rename="camel", gc=False):
    """An event with values as they came. `batch` stands for several events sent in one."""

    type: Any = MISSING
    user_id: Any = MISSING
    anonymous_id: Any = MISSING
    event: Any = MISSING
    traits: Any = MISSING
    properties: Any = MISSING
    context: Context | None = None
    timestamp: Any = MISSING
    batch: Any = MISSING


class Memberships(msgspec.Struct, frozen=True, gc=False):
    """What one event says about its person, and what is wrong with the parts that say nothing clearly."""

    said: Sequence[tuple[Cohort, bool]]
    problems: Sequence[InvalidValue] = ()

    def cohorts(self) -> list[Cohort]:
        """Those that it speaks of clearly."""
        return [cohort for cohort, _ in self.said]

    def is_one(self) -> bool:
        """Whether it speaks of one cohort, and clearly."""
        return len(self.said) == 1 and not self.problems


_Identifier = tuple[str, Callable[["Event"], object]]


def _email(event: Event) -> object:
    email = properties_of(event.traits).get("email")
    if email is None and event.context is not None:
        email = properties_of(event.context.traits).get("email")
    return email


_USER_ID: _Identifier = "/userId", attrgetter("user_id")
_ANONYMOUS_ID: _Identifier = "/anonymousId", attrgetter("anonymous_id")
_EMAIL: _Identifier = "/traits/email", _email
_IDENTIFIERS: Mapping[str, Sequence[_Identifier]] = {
    ContextKeyRule.USER_ID: (_USER_ID,),
    ContextKeyRule.USER_ID_OR_EMAIL: (_USER_ID, _EMAIL),
    ContextKeyRule.USER_ID_OR_ANONYMOUS_ID: (_USER_ID, _ANONYMOUS_ID),
    ContextKeyRule.USER_ID_OR_EMAIL_OR_ANONYMOUS_ID: (_USER_ID, _EMAIL, _ANONYMOUS_ID),
    ContextKeyRule.EMAIL: (_EMAIL,),
    ContextKeyRule.ANONYMOUS_ID: (_ANONYMOUS_ID,),
}


def context_key(event: Event, rule: str, max_bytes: int) -> str:
    """The first identifier that the rule allows and the event has. Only an empty one gives way to the next."""
    identifiers = _IDENTIFIERS.get(rule)
    if identifiers is None:
        # The feed's setting may be for another of the formats that it carries.
        raise InvalidValue(Reason.CONTEXT_KEY_MISSING, "the feed's context_key is no identifier that Segment has")
    is_empty = False
    for pointer, read in identifiers:
        value = read(event)
        if value == "":
            is_empty = True
        elif value is not MISSING and value is not None:
            return values.context_key(value, pointer, max_bytes)
    pointers = " and ".join(pointer for pointer, _ in identifiers)
    if is_empty:
        raise InvalidValue(Reason.CONTEXT_KEY_BLANK, f"{pointers}: blank or missing")
    raise InvalidValue(Reason.CONTEXT_KEY_MISSING, f"{pointers} {'is' if len(identifiers) == 1 else 'are'} missing")
