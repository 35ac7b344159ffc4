"""LaunchDarkly integration manifests: a person's JSON file in, a format that reads such payloads out.

Of a manifest only `capabilities.syncedSegment.requestParser` matters here. It says by JSON pointers where environment,
cohort and members stand. What it asks for and we cannot do is refused when the file is loaded, with the pointer to it:
a payload that is half understood would remove people from segments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from consumers.pointer import Pointer
from consumers.request_parser import Paths, RequestParser

_INTEGRATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class ManifestError(Exception):
    """A manifest cannot become a format. The text says which file, where in it, and what to do."""


def load(path: Path, *, integration: str | None = None) -> RequestParser:
    """The format of this manifest. It is called as its file, or as its folder where the file is a `manifest.json`."""
    name = integration or (path.parent.name if path.name == "manifest.json" else path.stem)
    if not _INTEGRATION.fullmatch(name):
        raise ManifestError(
            f"{path}: {name!r} cannot be an integration, since segment keys begin with it: rename the file or its folder "
            "to letters, digits, '.', '_' and '-', at most 64"
        )
    try:
        manifest = _Manifest.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise ManifestError(f"{path}: {_explained(exc)}") from None
    except OSError as exc:
        raise ManifestError(f"{path}: cannot be read: {exc.strerror}") from exc
    return RequestParser(name, manifest.capabilities.syncedSegment.requestParser.paths())


def _pointer(text: str) -> str:
    if not Pointer.parse(text).tokens:
        raise ValueError("the empty pointer names the whole document")
    return text


_Path = Annotated[str, AfterValidator(_pointer)]


class _Strict(BaseModel):
    # A name that we do not know may change who is in a segment.
    model_config = ConfigDict(extra="forbid", frozen=True)


class _MemberArrayParser(_Strict):
    memberIdPath: _Path
    booleanMembershipPath: _Path | None = None
    cohortIdPath: _Path | None = None
    cohortNamePath: _Path | None = None
    cohortUrlPath: _Path | None = None


class _ArrayInclusion(_Strict):
    path: _Path
    matcher: str


class _RequestParser(_Strict):
    environmentIdPath: _Path
    contextKindPath: _Path | None = None
    cohortIdPath: _Path
    cohortNamePath: _Path
    cohortUrlPath: _Path | None = None
    memberArrayPath: _Path | None = None
    addMemberArrayPath: _Path | None = None
    removeMemberArrayPath: _Path | None = None
    arrayInclusion: _ArrayInclusion | None = None
    memberArrayParser: _MemberArrayParser

    @model_validator(mode="after")
    def _has_one_way_to_say_who_is_in(self) -> Self:
        for name in ("addMemberArrayPath", "removeMemberArrayPath", "arrayInclusion"):
            if getattr(self, name) is not None:
                raise ValueError(f"/{name} is not supported yet: only payloads with a membership at each member are")
        if self.memberArrayPath is None:
            raise ValueError("/memberArrayPath is missing: nothing says where the members stand")
        if self.memberArrayParser.booleanMembershipPath is None:
            raise ValueError(
                "/memberArrayParser/booleanMembershipPath is missing: nothing says who is in and who is out"
            )
        return self

    def paths(self) -> Paths:
        """The same as pointers."""
        member = self.memberArrayParser
        return Paths(
            environment=Pointer.parse(self.environmentIdPath),
            context_kind=_optional(self.contextKindPath),
            cohort_id=Pointer.parse(self.cohortIdPath),
            cohort_name=Pointer.parse(self.cohortNamePath),
            cohort_url=_optional(self.cohortUrlPath),
            members=Pointer.parse(self.memberArrayPath or ""),
            member_id=Pointer.parse(member.memberIdPath),
            member_included=Pointer.parse(member.booleanMembershipPath or ""),
            member_cohort_id=_optional(member.cohortIdPath),
            member_cohort_name=_optional(member.cohortNamePath),
            member_cohort_url=_optional(member.cohortUrlPath),
        )


class _SyncedSegment(BaseModel):
    requestParser: _RequestParser


class _Capabilities(BaseModel):
    syncedSegment: _SyncedSegment


class _Manifest(BaseModel):
    capabilities: _Capabilities = Field()


def _optional(text: str | None) -> Pointer | None:
    return None if text is None else Pointer.parse(text)


def _explained(error: ValidationError) -> str:
    return "; ".join(
        f"{''.join(f'/{step}' for step in problem['loc']) or 'the file'}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    )
