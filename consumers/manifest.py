"""LaunchDarkly integration manifests: a person's JSON file in, a format that reads such payloads out.

Of a manifest only `capabilities.syncedSegment.requestParser` matters here. It says by JSON pointers where environment,
cohort and members stand. What it asks for and we cannot do is refused when the file is loaded, with the pointer to it:
a payload that is half understood would remove people from segments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

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
            f"{path}: {name!r} cannot be an integration, since segment keys begin with it: "
            "rename the file or its folder to letters, digits, '.', '_' and '-', at most 64"
        )
    try:
        manifest = _Manifest.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise ManifestError(f"{path}: {_explained(exc)}") from None
    except OSError as exc:
        raise ManifestError(f"{path}: cannot be read: {exc.strerror}") from exc
    return RequestParser(name, manifest.capabilities.synced_segment.request_parser.paths())


def _pointer(text: object) -> Pointer:
    pointer = Pointer.parse(text) if isinstance(text, str) else None
    if pointer is None or not pointer.tokens:
        raise ValueError("must be a JSON pointer to something within the document")
    return pointer


def _refused(_: object) -> None:
    raise ValueError("is not supported: only payloads that say at each member whether it is in or out are")


_Path = Annotated[Pointer, BeforeValidator(_pointer)]
_Unsupported = Annotated[None, BeforeValidator(_refused)]


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, arbitrary_types_allowed=True, frozen=True)


class _Strict(_Section):
    # A name that we do not know may change who is in a segment.
    model_config = ConfigDict(extra="forbid")


class _MemberArrayParser(_Strict):
    member_id_path: _Path
    boolean_membership_path: _Path
    cohort_id_path: _Path | None = None
    cohort_name_path: _Path | None = None
    cohort_url_path: _Path | None = None


class _RequestParser(_Strict):
    environment_id_path: _Path
    context_kind_path: _Path | None = None
    cohort_id_path: _Path
    cohort_name_path: _Path
    cohort_url_path: _Path | None = None
    member_array_path: _Path
    member_array_parser: _MemberArrayParser
    add_member_array_path: _Unsupported = None
    remove_member_array_path: _Unsupported = None
    array_inclusion: _Unsupported = None

    def paths(self) -> Paths:
        member = self.member_array_parser
        return Paths(
            environment=self.environment_id_path,
            context_kind=self.context_kind_path,
            cohort_id=self.cohort_id_path,
            cohort_name=self.cohort_name_path,
            cohort_url=self.cohort_url_path,
            members=self.member_array_path,
            member_id=member.member_id_path,
            member_included=member.boolean_membership_path,
            member_cohort_id=member.cohort_id_path,
            member_cohort_name=member.cohort_name_path,
            member_cohort_url=member.cohort_url_path,
        )


class _SyncedSegment(_Section):
    request_parser: _RequestParser


class _Capabilities(_Section):
    synced_segment: _SyncedSegment


class _Manifest(_Section):
    capabilities: _Capabilities


def _explained(error: ValidationError) -> str:
    return "; ".join(
        f"{_pointer_to(problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}" for problem in error.errors()
    )


def _pointer_to(steps: Sequence[int | str]) -> str:
    return "".join(f"/{step}" for step in steps) or "the file"
