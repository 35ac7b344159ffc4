"""LaunchDarkly integration manifests: a person's JSON file in, a format that reads such payloads out.

Of a manifest only `capabilities.syncedSegment` matters here. Its `requestParser` says by JSON pointers where
environment, cohort and members stand. What cannot work is refused when the file is loaded, with the pointer to it: a
payload that is half understood would remove people from segments. Our own definitions, in `integrations/`, say more
than LaunchDarkly's under `cohortSync`: the closed set of actions by their words, and what a full copy needs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from consumers.actions import Action, ActionMatcher, Actions, ActionWords, folded
from consumers.member_lists import MemberList
from consumers.pointer import Pointer
from consumers.request_parser import AnyOf, Paths, RequestParser

_INTEGRATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class ManifestError(Exception):
    """A manifest cannot become a format. The text says which file, where in it, and what to do."""


def load(path: Path, *, integration: str | None = None) -> RequestParser | AnyOf:
    """The format of this manifest. It is called as its file, or as its folder where the file is a `manifest.json`."""
    name = integration or (path.parent.name if path.name == "manifest.json" else path.stem)
    if not _INTEGRATION.fullmatch(name):
        raise ManifestError(
            f"{path}: {name!r} cannot be an integration, since segment keys begin with it: "
            "rename the file or its folder to letters, digits, '.', '_' and '-', at most 64"
        )
    try:
        return compiled(path.read_bytes(), name)
    except ManifestError as exc:
        raise ManifestError(f"{path}: {exc}") from None
    except OSError as exc:
        raise ManifestError(f"{path}: cannot be read: {exc.strerror}") from exc


def compiled(content: bytes, integration: str) -> RequestParser | AnyOf:
    """The format of a manifest with this content."""
    try:
        manifest = _Manifest.model_validate_json(content)
    except ValidationError as exc:
        raise ManifestError(_explained(exc)) from None
    return manifest.capabilities.synced_segment.parser(integration)


def _pointer(text: object) -> Pointer:
    pointer = Pointer.parse(text) if isinstance(text, str) else None
    if pointer is None or not pointer.tokens:
        raise ValueError("must be a JSON pointer to something within the document")
    return pointer


def _matcher(pattern: object) -> ActionMatcher:
    if not isinstance(pattern, str):
        raise ValueError("must be a pattern as text")  # noqa: TRY004 - pydantic turns it into an error of the file
    return ActionMatcher(pattern)


_Path = Annotated[Pointer, BeforeValidator(_pointer)]
_Matcher = Annotated[ActionMatcher, BeforeValidator(_matcher)]


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, arbitrary_types_allowed=True, frozen=True)


class _Strict(_Section):
    # A name that we do not know may change who is in a segment.
    model_config = ConfigDict(extra="forbid")


class _MemberArrayParser(_Strict):
    member_id_path: _Path
    boolean_membership_path: _Path | None = None
    cohort_id_path: _Path | None = None
    cohort_name_path: _Path | None = None
    cohort_url_path: _Path | None = None


class _ArrayInclusion(_Strict):
    path: _Path
    matcher: _Matcher


class _CohortSync(_Strict):
    """What our own definitions add to LaunchDarkly's: every action by its word, and what a full copy needs."""

    action_path: _Path | None = None
    actions: dict[str, Action] | None = None
    session_path: _Path | None = None
    page_path: _Path | None = None
    pages_path: _Path | None = None
    environment_may_be_foreign: bool = False


class _RequestParser(_Strict):
    environment_id_path: _Path
    context_kind_path: _Path | None = None
    cohort_id_path: _Path
    cohort_name_path: _Path
    cohort_url_path: _Path | None = None
    member_array_path: _Path | None = None
    add_member_array_path: _Path | None = None
    remove_member_array_path: _Path | None = None
    array_inclusion: _ArrayInclusion | None = None
    member_array_parser: _MemberArrayParser
    cohort_sync: _CohortSync = _CohortSync()

    @model_validator(mode="after")
    def says_who_is_in(self) -> Self:
        """One way, and only one, in which a payload says who joins and who leaves."""
        add, remove, inclusion = self.add_member_array_path, self.remove_member_array_path, self.array_inclusion
        boolean, ours = self.member_array_parser.boolean_membership_path, self.cohort_sync
        if add or remove:
            _require(add, "/addMemberArrayPath", "is missing: a list to remove needs one to add")
            _require(remove, "/removeMemberArrayPath", "is missing: a list to add needs one to remove")
            _require(add != remove, "/removeMemberArrayPath", "is the list to add, too")
            _require(not self.member_array_path, "/memberArrayPath", "has no meaning beside addMemberArrayPath")
            _require(not inclusion, "/arrayInclusion", "has no meaning beside addMemberArrayPath")
            _require(
                not boolean, "/memberArrayParser/booleanMembershipPath", "has no meaning beside addMemberArrayPath"
            )
        else:
            by_action = inclusion or ours.actions
            _require(self.member_array_path, "/memberArrayPath", "is missing, and so are the lists to add and remove")
            _require(
                by_action or boolean,
                "/memberArrayParser/booleanMembershipPath",
                "is missing, and neither lists nor an arrayInclusion say who is in and who is out",
            )
            _require(not (by_action and boolean), "/arrayInclusion", "has no meaning beside booleanMembershipPath")
        _require(not ours.actions or ours.action_path or inclusion, "/cohortSync/actionPath", "is missing")
        meant = set(ours.actions.values()) if ours.actions else set()
        if add:
            # Each list says itself what it does: an action that says otherwise would not be followed.
            only = "can be only lists, drain and ignore beside addMemberArrayPath: the others need one list of members"
            _require(meant <= {Action.LISTS, Action.DRAIN, Action.IGNORE}, "/cohortSync/actions", only)
        _require(
            add or Action.LISTS not in meant, "/cohortSync/actions", "can be 'lists' only beside addMemberArrayPath"
        )
        if Action.REPLACE in meant:
            paged = bool(ours.page_path), bool(ours.pages_path)
            _require(paged[0] == paged[1], "/cohortSync/pagesPath", "and pagePath need each other")
            own_cohort = self.member_array_parser.cohort_id_path
            _require(not own_cohort, "/memberArrayParser/cohortIdPath", "has no place where an action replaces members")
        else:
            paths = (("sessionPath", ours.session_path), ("pagePath", ours.page_path), ("pagesPath", ours.pages_path))
            for name, path in paths:
                _require(not path, f"/cohortSync/{name}", "has no meaning where no action replaces")
        for name, action in (ours.actions or {}).items():
            same = {other for word, other in (ours.actions or {}).items() if folded(word) == folded(name)}
            _require(same == {action}, f"/cohortSync/actions/{name}", "is also a word for another action")
        _require(
            boolean != self.member_array_parser.member_id_path,
            "/memberArrayParser/booleanMembershipPath",
            "is where the id stands",
        )
        for each in filter(None, (self.member_array_path, add, remove)):
            for name, path in (("environmentIdPath", self.environment_id_path), ("cohortIdPath", self.cohort_id_path)):
                _require(path != each, f"/{name}", "is where members are listed")
        if add and remove:
            apart = add.below(remove) is None and remove.below(add) is None
            _require(apart, "/removeMemberArrayPath", "and addMemberArrayPath are within each other")
        return self

    def parser(self, integration: str, response_body: str | None) -> RequestParser:
        member, inclusion, ours = self.member_array_parser, self.array_inclusion, self.cohort_sync
        actions: Actions | None = inclusion.matcher if inclusion else None
        if ours.actions:
            actions = ActionWords(ours.actions)
        paths = Paths(
            environment=self.environment_id_path,
            context_kind=self.context_kind_path,
            cohort_id=self.cohort_id_path,
            cohort_name=self.cohort_name_path,
            cohort_url=self.cohort_url_path,
            action=ours.action_path or (inclusion.path if inclusion else None),
            session=ours.session_path,
            page=ours.page_path,
            pages=ours.pages_path,
            member_id=member.member_id_path,
            member_included=member.boolean_membership_path,
            member_cohort_id=member.cohort_id_path,
            member_cohort_name=member.cohort_name_path,
            member_cohort_url=member.cohort_url_path,
        )
        return RequestParser(
            integration,
            paths,
            self._lists(),
            actions=actions,
            environment_may_be_foreign=ours.environment_may_be_foreign,
            response_body=response_body,
        )

    def _lists(self) -> list[MemberList]:
        lists = (
            (self.member_array_path, None),
            (self.add_member_array_path, True),
            (self.remove_member_array_path, False),
        )
        return [MemberList(pointer, included) for pointer, included in lists if pointer]


class _SyncedSegment(_Section):
    request_parser: _RequestParser
    other_request_parsers: tuple[_RequestParser, ...] = ()
    """Our own addition: the same integration's payloads in other shapes."""
    json_response_body: str | None = None

    def parser(self, integration: str) -> RequestParser | AnyOf:
        parsers = [
            each.parser(integration, self.json_response_body)
            for each in (self.request_parser, *self.other_request_parsers)
        ]
        return parsers[0] if len(parsers) == 1 else AnyOf(parsers)


class _Capabilities(_Section):
    synced_segment: _SyncedSegment


class _Manifest(_Section):
    capabilities: _Capabilities


def _require(condition: object, where: str, otherwise: str) -> None:
    if not condition:
        raise ValueError(f"{where}: {otherwise}")


def _explained(error: ValidationError) -> str:
    return "; ".join(
        _pointer_and_problem(_pointer_to(problem["loc"]), problem["msg"].removeprefix("Value error, "))
        for problem in error.errors()
    )


def _pointer_and_problem(pointer: str, message: str) -> str:
    # What is wrong between several members of an object says itself at which of them.
    return f"{pointer}{message}" if message.startswith("/") else f"{pointer}: {message}"


def _pointer_to(steps: Sequence[int | str]) -> str:
    return "".join(f"/{step}" for step in steps) or "the file"
