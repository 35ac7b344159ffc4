"""Environment variables as settings: `COHORT_SYNC_KAFKA__BOOTSTRAP_SERVERS` is `kafka.bootstrap_servers`.

Places in lists are numbers: `COHORT_SYNC_FEEDS__0__ENVIRONMENT`. Text is taken as it is; numbers, lists and sections
are written as YAML or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import yaml

from worker.config.document import Document
from worker.config.problems import Location, Problem, nearest, variable_place
from worker.config.shape import INDEX, all_paths, at, is_text

PREFIX = "COHORT_SYNC_"
CONFIG_VARIABLE = "COHORT_SYNC_CONFIG"
TEST_PREFIX = "COHORT_SYNC_TEST_"
"""What tests are told; no settings."""

# Kubernetes gives every container such variables for each Service of its namespace, and one may be `cohort-sync`.
_SERVICE_LINK = re.compile(
    r"COHORT_SYNC_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_SERVICE_URL = re.compile(r"(?:tcp|udp|sctp)://")


def overlay(document: Document, environ: Mapping[str, str]) -> list[Problem]:
    """Puts the variables' values over those of the file. What is wrong with variables comes back."""
    found = [(name, _location(name)) for name in environ if _is_ours(name, environ[name])]
    found.sort(key=lambda item: (len(item[1]), [(isinstance(step, str), step) for step in item[1]]))
    problems = (_override(document, name, location, environ[name]) for name, location in found)
    return [problem for problem in problems if problem]


def variable_name(path: Iterable[str | int]) -> str:
    """The variable that sets this."""
    return PREFIX + "__".join(str(step).upper() for step in path)


def _is_ours(name: str, text: str) -> bool:
    if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or name.startswith(TEST_PREFIX):
        return False
    is_service_link = _SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_URL.match(text))
    return "__" in name or not is_service_link


def _location(name: str) -> Location:
    steps = name.removeprefix(PREFIX).lower().split("__")
    return tuple(int(step) if step.isdecimal() else step for step in steps)


def _override(document: Document, name: str, location: Location, text: str) -> Problem | None:
    place = variable_place(name)
    kind = at(location)
    if kind is None:
        return Problem((), f"is not a setting{_did_you_mean(name)}", place)
    try:
        value: object = text if is_text(kind) else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return Problem((), "should be a value in YAML or JSON", place)
    if not document.override(location, value, name):
        return Problem(
            (), "has no place: entries before it are missing in the list, or the file has no list there", place
        )
    return None


def _did_you_mean(name: str) -> str:
    """The nearest known variable, with the numbers that were given."""
    numbers = re.findall(r"(?<=__)\d+(?=__|$)", name)
    # The prefix that all share would make any name look like any other.
    known = [variable_name(path).removeprefix(PREFIX) for path in all_paths()]
    near = nearest(re.sub(r"(?<=__)\d+(?=__|$)", INDEX, name.removeprefix(PREFIX)), known)
    if near is None:
        return ": see `cohort-sync config --help` for how settings are named"
    for number in (*numbers, *"0" * near.count(INDEX)):
        near = near.replace(INDEX, number, 1)
    return f" (did you mean '{PREFIX}{near}'?)"
