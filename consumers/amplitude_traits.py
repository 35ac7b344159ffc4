"""Amplitude cohorts that are named by a property: `[Amplitude] Power users (7khm89cz)` and its four relatives.

Amplitude writes the cohort's name and id into the name of a trait. A cohort's name may hold parentheses and colons
itself, so the id is what follows the last separator, and only what looks like one of Amplitude's ids is one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

INTEGRATION = "amplitude"
PREFIX = "[Amplitude] "
TEMPLATE_PREFIX = "amplitude_"
TRAIT_CHARACTERS = 2048
_CACHED_TRAITS = 4096

_ID = r"(?P<id>[A-Za-z0-9.-]{1,64})"
_FORMS = (
    re.compile(rf"(?P<name>.+) \({_ID}\)", re.DOTALL),
    re.compile(rf"{TEMPLATE_PREFIX}(?P<name>.+)_{_ID}", re.DOTALL),
    re.compile(rf"(?P<name>.+?) ?: ?{_ID}", re.DOTALL),
)


class TraitCohort(NamedTuple):
    """The cohort that a trait is about."""

    cohort_id: str
    name: str


def cohort_in(trait: str) -> TraitCohort | None:
    """The cohort that the name of this trait names, or None."""
    return None if len(trait) > TRAIT_CHARACTERS else _found_in(trait)


@lru_cache(maxsize=_CACHED_TRAITS)
def _found_in(trait: str) -> TraitCohort | None:
    text = trait.removeprefix(PREFIX)
    for form in _FORMS:
        found = form.fullmatch(text)
        if found:
            return TraitCohort(found["id"], found["name"])
    return None
