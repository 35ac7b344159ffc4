"""Edits of a segment as LaunchDarkly takes them: JSON patch, and semantic patch. Pure.

Only its name, description and tags can be edited. The key never changes, and who is in it is for its tool to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from stores.postgres.segments import Edit, SegmentView
from worker.gateway.answers import Refused
from worker.gateway.policies import UPDATE_DESCRIPTION, UPDATE_NAME, UPDATE_TAGS

SEMANTIC = "domain-model=launchdarkly.semanticpatch"
MOST_OPERATIONS = 1_500
MOST_TAGS = 100
NAME_CHARACTERS = 256
DESCRIPTION_CHARACTERS = 4_096
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ACTIONS = {"name": UPDATE_NAME, "description": UPDATE_DESCRIPTION, "tags": UPDATE_TAGS}
_CONFLICT = 409


class Operation(msgspec.Struct, frozen=True):
    """One operation of a JSON patch."""

    op: str
    path: str
    value: Any = msgspec.UNSET


class _Patch(msgspec.Struct, frozen=True):
    patch: list[Operation]
    comment: str | None = None


class Instruction(msgspec.Struct, frozen=True):
    """One instruction of a semantic patch."""

    kind: str
    value: Any = None
    values: Any = None


class _SemanticPatch(msgspec.Struct, frozen=True):
    instructions: list[Instruction]
    comment: str | None = None


class SegmentPatch:
    """What is to be done to a segment, whichever way it was said. Raises `Refused` where it can't be."""

    def __init__(self, steps: list[Operation] | list[Instruction]) -> None:
        if len(steps) > MOST_OPERATIONS:
            raise _invalid(f"A patch has at most {MOST_OPERATIONS} operations")
        self._steps = steps
        touched = {attribute for step in steps if (attribute := _touched(step))}
        self.actions = sorted(_ACTIONS[each] for each in touched)
        """What a token must be allowed for it."""
        self._touched = touched

    def apply(self, segment: SegmentView) -> Edit:
        """What becomes of this segment."""
        draft = _Draft(segment)
        for step in self._steps:
            if isinstance(step, Operation):
                draft.operate(step)
            else:
                draft.follow(step)
        return Edit(
            name=_name(draft.name) if "name" in self._touched else None,
            description=_description(draft.description) if "description" in self._touched else None,
            tags=_tags(draft.tags) if "tags" in self._touched else None,
        )


def parse_patch(body: bytes, content_type: str) -> SegmentPatch:
    """The patch that this body is. Raises `Refused`."""
    try:
        if SEMANTIC in content_type.replace(" ", "").casefold():
            return SegmentPatch(msgspec.json.decode(body, type=_SemanticPatch).instructions)
        patch = msgspec.json.decode(body, type=list[Operation] | _Patch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid("The body is neither a JSON patch nor, with its content type, a semantic patch") from None
    return SegmentPatch(patch.patch if isinstance(patch, _Patch) else patch)


def _touched(step: Operation | Instruction) -> str | None:
    """The attribute that this changes; None for a test."""
    if isinstance(step, Instruction):
        if step.kind not in _FOLLOWED:
            raise _invalid(f"Only {', '.join(_FOLLOWED)} can be done here: members are for the segment's tool to say")
        return _FOLLOWED[step.kind]
    if step.op not in ("add", "replace", "remove", "test"):
        raise _invalid("An operation is add, replace, remove or test")
    if step.op != "remove" and step.value is msgspec.UNSET:
        raise _invalid(f"An operation that is {step.op} has a value")
    if step.op == "test":
        return None
    attribute = step.path.split("/")[1] if step.path.startswith("/") else ""
    if attribute == "key":
        raise _invalid("The key of a segment never changes")
    if attribute not in _ACTIONS or (attribute != "tags" and step.path != f"/{attribute}"):
        raise _invalid("Only /name, /description and /tags can be edited: members are for the segment's tool to say")
    return attribute


_FOLLOWED = {
    "updateName": "name",
    "updateDescription": "description",
    "addTags": "tags",
    "removeTags": "tags",
}


class _Draft:
    """A segment while it is edited."""

    def __init__(self, segment: SegmentView) -> None:
        self.name: object = segment.name
        self.description: object = segment.description
        self.tags: list[object] = list(segment.tags)
        self._version = segment.edits + 1
        self._key = segment.key

    def operate(self, operation: Operation) -> None:
        path, value = operation.path, operation.value
        if operation.op == "test":
            self._test(path, value)
        elif path == "/name":
            self.name = value if operation.op != "remove" else None
        elif path == "/description":
            self.description = value if operation.op != "remove" else ""
        elif path == "/tags":
            self.tags = _listed(value) if operation.op != "remove" else []
        else:
            self._change_tag(operation)

    def follow(self, instruction: Instruction) -> None:
        if instruction.kind == "updateName":
            self.name = instruction.value
        elif instruction.kind == "updateDescription":
            self.description = instruction.value
        elif instruction.kind == "addTags":
            self.tags += [each for each in _listed(instruction.values) if each not in self.tags]
            if len(self.tags) > MOST_TAGS:
                raise _unfit_tags()
        else:
            gone = _listed(instruction.values)
            self.tags = [each for each in self.tags if each not in gone]

    def _change_tag(self, operation: Operation) -> None:
        place = operation.path.removeprefix("/tags/")
        if place == "-" and operation.op == "add":
            self.tags.append(operation.value)
            return
        number = int(place) if place.isdecimal() and len(place) < len(str(MOST_TAGS * MOST_OPERATIONS)) else None
        if number is None or number > len(self.tags) - (operation.op != "add"):
            raise _invalid("A patch names a tag that is not there")
        if operation.op == "add":
            self.tags.insert(number, operation.value)
        elif operation.op == "replace":
            self.tags[number] = operation.value
        else:
            del self.tags[number]

    def _test(self, path: str, value: object) -> None:
        known: dict[str, Callable[[], object]] = {
            "/name": lambda: self.name,
            "/description": lambda: self.description,
            "/tags": lambda: self.tags,
            "/version": lambda: self._version,
            "/key": lambda: self._key,
        }
        known |= {f"/tags/{number}": partial(self.tags.__getitem__, number) for number in range(len(self.tags))}
        if path not in known or known[path]() != value:
            raise Refused(_CONFLICT, "optimistic_locking_error", "A test of the patch does not hold: read it again")


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > NAME_CHARACTERS or "\0" in value:
        raise _invalid(f"A name is text of 1 to {NAME_CHARACTERS} characters")
    return value


def _description(value: object) -> str:
    if not isinstance(value, str) or len(value) > DESCRIPTION_CHARACTERS or "\0" in value:
        raise _invalid(f"A description is text of at most {DESCRIPTION_CHARACTERS} characters")
    return value


def _tags(values: list[object]) -> list[str]:
    tags = [value for value in values if isinstance(value, str) and _TAG.fullmatch(value)]
    if len(tags) != len(values) or len(tags) > MOST_TAGS:
        raise _unfit_tags()
    return sorted(set(tags))


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _invalid("Tags are given as a list")
    if len(value) > MOST_TAGS:  # here, since each of them is compared with each that is there
        raise _unfit_tags()
    return list(value)


def _unfit_tags() -> Refused:
    return _invalid(f"Tags are at most {MOST_TAGS}, each of 1 to 64 letters, digits, '_', '.' and '-'")


def _invalid(message: str) -> Refused:
    return Refused(400, "invalid_request", message)
