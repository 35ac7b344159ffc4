"""What can be wrong with a configuration, in words that say what to do. No text quotes a value that may be secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.7) -> str | None:
    """The known name that is most like this one, if any is so like it that it was probably meant."""
    by_plain_name = {_plain(candidate): candidate for candidate in known}
    near = get_close_matches(_plain(name), by_plain_name, n=1, cutoff=likeness)
    return by_plain_name[near[0]] if near else None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The nearest known name as a question, or all of them where none is near."""
    if near := nearest(name, known):
        return f" (did you mean '{near}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def from_validation(error: ValidationError) -> list[Problem]:
    """Everything that pydantic found, in our words."""
    return [_problem(details) for details in error.errors(include_url=False)]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")


def _problem(details: Any) -> Problem:
    location = details["loc"]
    say = _SAYINGS.get(details["type"], _reworded)
    return Problem(location, say(details))


def _unknown(details: Any) -> str:
    *section, name = details["loc"]
    return f"is not a setting{did_you_mean(str(name), fields_at(tuple(section)))}"


def _no_section(details: Any) -> str:
    return f"should be a mapping with {', '.join(fields_at(details['loc']))}"


def _not_one_of(details: Any) -> str:
    allowed = re.findall(r"'([^']*)'", details["ctx"]["expected"])
    near = nearest(str(details["input"]), allowed)
    hint = f" (did you mean '{near}'?)" if near else ""
    return f"is not one of {', '.join(allowed)}{hint}"


def _no_text(details: Any) -> str:
    is_scalar = not isinstance(details["input"], (dict, list))
    return "should be text" + (": write it in quotes" if is_scalar else "")


def _reworded(details: Any) -> str:
    message = details["msg"].replace("Input should", "should", 1)
    message = re.sub(r"^(String|Tuple) should have", "should have", message).partition(", unable to parse")[0]
    given = details["input"]
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return f"{message}, not {given}" if is_number else message


_SAYINGS: dict[str, Callable[[Any], str]] = {
    "missing": lambda _: "is missing",
    "extra_forbidden": _unknown,
    "literal_error": _not_one_of,
    "value_error": lambda details: str(details["ctx"]["error"]),
    "model_type": _no_section,
    "model_attributes_type": _no_section,
    "tuple_type": lambda _: "should be a list",
    "string_type": _no_text,
}
