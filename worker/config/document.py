"""A YAML file as values, with the line of each, so that an error can say where."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import yaml

from worker.config.problems import ConfigError, Location, Place, Problem, variable_place

HOW_TO_START = """\
a file that is enough to start with:

kafka: {bootstrap_servers: "127.0.0.1:9092"}
postgres: {dsn: "postgresql://cohort_sync@127.0.0.1:5432/cohort_sync"}
feeds:
  - {name: amplitude, topics: [cohorts.amplitude], format: amplitude-webhook, environment: production}
"""


class Document:
    """The values of a configuration file, and where each of them comes from."""

    def __init__(self, path: Path) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._path = path
        self._lines: dict[Location, int] = {}
        self._variables: dict[Location, str] = {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the file. Raises `ConfigError` where there is none, or no YAML mapping in it."""
        document = cls(path)
        loader = yaml.SafeLoader(_text(path))
        try:
            node = loader.get_single_node()
            if node is not None:
                document._visit(node, (), ())
                document._set(loader.construct_document(node))
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark
            place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1"
            # Names of aliases and tags are quoted there, and a password may look like one.
            said = re.sub(r"'(?!<)[^']{2,}'", "'…'", exc.problem or exc.context or "")
            raise ConfigError([f"{path}:{place}: is not YAML: {said}"]) from None
        except (yaml.YAMLError, ValueError):
            raise ConfigError(
                [f"{path}: is not YAML: it holds characters, a date or a number that YAML has not"]
            ) from None
        finally:
            loader.dispose()
        return document

    def place(self, location: Location) -> Place:
        """Where the value stands, or else what it would stand in: a line of the file, or a variable."""
        for length in range(len(location), -1, -1):
            if variable := self._variables.get(location[:length]):
                return variable_place(variable)
            if line := self._lines.get(location[:length]):
                return Place(line, f"{self._path}:{line}")
        return Place(1, f"{self._path}:1")

    def override(self, location: Location, value: object, variable: str) -> bool:
        """Puts a value there. False where lists would get a hole, or where a section is something else."""
        inside: Any = self.values
        for step, following in pairwise(location):
            if not _has_place(inside, step):
                return False
            inside = _child(inside, step, [] if isinstance(following, int) else {})
        if not _has_place(inside, location[-1]):
            return False
        _put(inside, location[-1], value)
        self._lines = {place: line for place, line in self._lines.items() if place[: len(location)] != location}
        self._variables[location] = variable
        return True

    def _set(self, values: object) -> None:
        values = _without_nulls(values)
        if not isinstance(values, dict):
            raise ConfigError([f"{self._path}:1: should be a mapping of settings, as in `kafka: ...`"])
        self.values = values

    def _visit(self, node: yaml.Node, location: Location, above: tuple[yaml.Node, ...]) -> None:
        """Notes lines, and finds names that are given twice, of which YAML would silently keep the last."""
        if node in above:
            raise ConfigError(
                [f"{self._path}:{node.start_mark.line + 1}: {'.'.join(map(str, location))}: contains itself"]
            )
        self._lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._visit(item, (*location, number), (*above, node))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._visit_entry(key, value, location, (*above, node))

    def _visit_entry(self, key: yaml.Node, value: yaml.Node, location: Location, above: tuple[yaml.Node, ...]) -> None:
        line, entry = key.start_mark.line + 1, (*location, str(key.value))
        if entry in self._lines:
            first = self._lines[entry]
            place = Place(line, f"{self._path}:{line}")
            self.problems.append(Problem(entry, f"is given twice, first in line {first}", place))
            return
        self._lines[entry] = line
        self._visit(value, entry, above)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        problem = f"{path}: there is no such file. Name one with --config FILE or $COHORT_SYNC_CONFIG, or make it;"
        raise ConfigError([f"{problem} {HOW_TO_START}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not a text file in UTF-8"]) from None
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be read: {exc.strerror}"]) from None


def _without_nulls(value: object) -> object:
    """A name with nothing behind it means the default."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _has_place(inside: object, step: str | int) -> bool:
    if isinstance(step, int):
        return isinstance(inside, list) and step <= len(inside)
    return isinstance(inside, dict)


def _child(inside: Any, step: str | int, empty: object) -> Any:
    if step == len(inside) if isinstance(step, int) else step not in inside:
        _put(inside, step, empty)
    return inside[step]


def _put(inside: Any, step: str | int, value: object) -> None:
    if step == len(inside) and isinstance(inside, list):
        inside.append(value)
    else:
        inside[step] = value
