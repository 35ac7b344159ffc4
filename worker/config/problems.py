"""What can be wrong with a configuration, in words that say what to do. No text quotes a value that may be secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError

from worker.config.shape import fields_at

Location = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration can't be used. The text has a line for each problem: where, what, and what to do."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


class Place(NamedTuple):
    """Where to look: a line of the file, or a variable, which comes behind all lines."""

    order: float
    text: str


class Problem(NamedTuple):
    """One thing that is wrong, at one location of the document or, with `place`, elsewhere."""

    location: Location
    text: str
    place: Place | None = None


def variable_place(name: str) -> Place:
    """An environment variable as the place of a problem."""
    return Place(float("inf"), f"environment variable {name}")


def path_text(location: Location) -> str:
    """The location as people write it: `feeds[0].format`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The nearest known name as a question, or all of them where none is near."""
    by_plain_name = {_plain(candidate): candidate for candidate in known}
    near = get_close_matches(_plain(name), by_plain_name, n=1)
    if near:
        return f" (did you mean '{by_plain_name[near[0]]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def from_validation(error: ValidationError) -> list[Problem]:
    """Everything that pydantic found, in our words."""
    return [_problem(details) for details in error.errors(include_url=False)]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")


def _problem(details: Any) -> Problem:
    kind, location, context = details["type"], details["loc"], details.get("ctx", {})
    if kind == "missing":
        return Problem(location, "is missing")
    if kind == "extra_forbidden":
        return Problem(location, f"is not a setting{did_you_mean(str(location[-1]), fields_at(location[:-1]))}")
    if kind == "literal_error":
        return Problem(location, _not_one_of(details["input"], re.findall(r"'([^']*)'", context["expected"])))
    if kind == "value_error":
        return Problem(location, str(context["error"]))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(location, f"should be a mapping with {', '.join(fields_at(location))}")
    if kind == "tuple_type":
        return Problem(location, "should be a list")
    if kind == "string_type":
        return Problem(location, _no_text(details["input"]))
    return Problem(location, _reworded(details["msg"], details["input"]))


def _not_one_of(given: object, allowed: list[str]) -> str:
    said = f"is not one of {', '.join(allowed)}"
    near = get_close_matches(_plain(str(given)), list(map(_plain, allowed)), n=1)
    return said + (f" (did you mean '{allowed[list(map(_plain, allowed)).index(near[0])]}'?)" if near else "")


def _no_text(given: object) -> str:
    is_scalar = not isinstance(given, (dict, list))
    return "should be text" + (": write it in quotes" if is_scalar else "")


def _reworded(message: str, given: object) -> str:
    message = message.replace("Input should", "should", 1)
    message = re.sub(r"^(String|Tuple) should have", "should have", message).partition(", unable to parse")[0]
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return f"{message}, not {given}" if is_number else message
