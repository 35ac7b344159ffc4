"""Policies as LaunchDarkly writes them: which actions a token may do to which resources. Pure.

A statement allows or denies actions on resources; what no statement allows is denied, and a deny wins. Resources are
written `proj/*:env/production:segment/amplitude-*;beta,eu`: each part is a kind, a key with wildcards, and perhaps
tags, of which the resource needs all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from worker.config.problems import did_you_mean, nearest

MOST_STATEMENTS = 100
MOST_ENTRIES = 200
KNOWN_ANSWERS = 1_000
CREATE_SEGMENT, UPDATE_INCLUDED, VIEW_PROJECT = "createSegment", "updateIncluded", "viewProject"
UPDATE_NAME, UPDATE_DESCRIPTION, UPDATE_TAGS = "updateName", "updateDescription", "updateTags"
KNOWN_ACTIONS = (
    *(CREATE_SEGMENT, "deleteSegment", UPDATE_INCLUDED, "updateExcluded", UPDATE_NAME, UPDATE_DESCRIPTION, UPDATE_TAGS),
    *("updateRules", "updateExpiringTargets", "updateScheduledChanges", "applyApprovalRequest", VIEW_PROJECT),
)
DEFAULT_PROJECT = "default"
"""The project of environments for which the configuration names none."""

_PART = re.compile(r"(?P<kind>[a-z][a-z-]*)/(?P<key>[A-Za-z0-9_.*-]+)(?:;(?P<tags>[A-Za-z0-9_.,-]+))?")
_ACTION = re.compile(r"[A-Za-z*]{1,100}")
_STARS = re.compile(r"\*+")

_Texts = Annotated[list[str], Field(min_length=1, max_length=MOST_ENTRIES)]


class PolicyError(Exception):
    """A policy can't be used. The text says which statement, and what is wrong there."""


class Resource(NamedTuple):
    """A segment, or with `segment` None its project."""

    project: str
    environment: str | None = None
    segment: str | None = None
    tags: frozenset[str] = frozenset()
    """Of the segment."""

    def parts(self) -> list[tuple[str, str, frozenset[str]]]:
        """Each kind with its key and its tags. Projects and environments have none here."""
        parts = [("proj", self.project, _NO_TAGS)]
        if self.environment is not None:
            parts.append(("env", self.environment, _NO_TAGS))
        if self.segment is not None:
            parts.append(("segment", self.segment, self.tags))
        return parts


class Policy:
    """The statements of one token."""

    def __init__(self, statements: Sequence[_Statement]) -> None:
        self._statements = [_Compiled(statement) for statement in statements]
        self.needs_tags = any(";" in text for statement in statements for text in statement.every_resource())
        """Whether a segment's tags can change the answer."""
        # Tools send the same segments over and over.
        self._known = lru_cache(maxsize=KNOWN_ANSWERS)(self._answer)

    def allows(self, resource: Resource, actions: Iterable[str]) -> bool:
        """Whether all of these actions may be done to the resource."""
        return self._known(resource, tuple(actions))

    def _answer(self, resource: Resource, actions: tuple[str, ...]) -> bool:
        return all(self._allows(resource, action) for action in actions)

    def _allows(self, resource: Resource, action: str) -> bool:
        allowed = False
        for statement in self._statements:
            if statement.concerns(resource, action):
                if not statement.is_allow:
                    return False
                allowed = True
        return allowed


class _Statement(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    effect: Literal["allow", "deny"]
    resources: _Texts | None = None
    notResources: _Texts | None = None  # noqa: N815 - as LaunchDarkly calls it
    actions: _Texts | None = None
    notActions: _Texts | None = None  # noqa: N815 - likewise

    def every_resource(self) -> list[str]:
        return [*(self.resources or ()), *(self.notResources or ())]

    @model_validator(mode="after")
    def says_one_thing(self) -> _Statement:
        if (self.resources is None) == (self.notResources is None):
            raise ValueError("needs either resources or notResources")
        if (self.actions is None) == (self.notActions is None):
            raise ValueError("needs either actions or notActions")
        for resource in self.every_resource():
            _checked_resource(resource)
        for action in (*(self.actions or ()), *(self.notActions or ())):
            _checked_action(action)
        return self


_STATEMENTS = TypeAdapter(Annotated[list[_Statement], Field(min_length=1, max_length=MOST_STATEMENTS)])


def parse_policy(document: str | bytes) -> Policy:
    """The policy that this JSON list of statements is. Raises `PolicyError`."""
    try:
        return Policy(_STATEMENTS.validate_json(document))
    except ValidationError as exc:
        raise PolicyError("; ".join(map(_problem, exc.errors()))) from None


ROLES = {
    "writer": '[{"effect": "allow", "resources": ["proj/*"], "actions": ["viewProject"]}, '
    '{"effect": "allow", "resources": ["proj/*:env/*:segment/*"], "actions": ["*"]}]'
}
"""The policy that each role stands for."""


def _problem(error: object) -> str:
    found = dict(error)  # type: ignore[call-overload]
    where = "".join(f"/{step}" for step in found["loc"]) or "the policy"
    return f"{where}: {found['msg'].removeprefix('Value error, ')}"


class _Compiled:
    """A statement, ready to be asked."""

    def __init__(self, statement: _Statement) -> None:
        self.is_allow = statement.effect == "allow"
        self._negates_resources = statement.resources is None
        self._resources = [_parts(text) for text in statement.every_resource()]
        self._negates_actions = statement.actions is None
        self._actions = [_Glob(text) for text in (statement.actions or statement.notActions or ())]

    def concerns(self, resource: Resource, action: str) -> bool:
        """Whether it says something about doing this to that."""
        if any(glob.matches(action) for glob in self._actions) is self._negates_actions:
            return False
        parts = resource.parts()
        return any(_matches(wanted, parts) for wanted in self._resources) is not self._negates_resources


class _Part(NamedTuple):
    kind: str
    key: _Glob
    tags: frozenset[str]


_NO_TAGS: frozenset[str] = frozenset()


def _matches(wanted: Sequence[_Part], parts: Sequence[tuple[str, str, frozenset[str]]]) -> bool:
    return len(wanted) == len(parts) and all(
        part.kind == kind and part.key.matches(key) and part.tags <= tags
        for part, (kind, key, tags) in zip(wanted, parts, strict=True)
    )


class _Glob:
    """A text in which `*` stands for anything. Matching goes over the key once, whatever the text is."""

    def __init__(self, text: str) -> None:
        self._first, *rest = _STARS.split(text)
        self._last = rest.pop() if rest else None
        self._middle = rest

    def matches(self, key: str) -> bool:
        if self._last is None:
            return key == self._first
        at, end = len(self._first), len(key) - len(self._last)
        if at > end or not key.startswith(self._first) or not key.endswith(self._last):
            return False
        for piece in self._middle:
            found = key.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def _parts(resource: str) -> list[_Part]:
    found = [_PART.fullmatch(part) for part in resource.split(":")]
    return [
        _Part(part["kind"], _Glob(part["key"]), frozenset(filter(None, (part["tags"] or "").split(","))))
        for part in found
        if part
    ]


def _checked_resource(resource: str) -> None:
    parts = resource.split(":")
    found = [_PART.fullmatch(part) for part in parts]
    kinds = [part["kind"] for part in found if part]
    # What would match nothing is refused: in a deny nobody would notice.
    if not all(found) or ("segment" in kinds and kinds != ["proj", "env", "segment"]):
        raise ValueError(f"{resource!r} is no resource: write it as in proj/*:env/production:segment/*")
    for part in filter(None, found):
        if part["kind"] in ("proj", "env") and part["tags"]:
            raise ValueError(f"{resource!r} asks for tags of a {part['kind']}: only segments have tags here")


def _checked_action(action: str) -> None:
    if not _ACTION.fullmatch(action):
        raise ValueError(f"{action!r} is no action: write it as in updateIncluded, or update*")
    if "*" not in action and action not in KNOWN_ACTIONS and nearest(action, KNOWN_ACTIONS, likeness=0.8):
        # A typo in a deny would let pass what it is there to stop. LaunchDarkly has many more actions than we.
        raise ValueError(f"{action!r} is no action{did_you_mean(action, list(KNOWN_ACTIONS))}")
