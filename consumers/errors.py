"""Why something that arrived is not applied: the closed lists that become metric labels, headers and sentences."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from stores.model import Cohort


class Reason(StrEnum):
    """Why a record, or one member of it, can never become a delta. `SENTENCES` says each to a person."""

    VALUE_EMPTY = "value_empty"
    RECORD_TOO_LARGE = "record_too_large"
    JSON_INVALID = "json_invalid"
    JSON_TOO_DEEP = "json_too_deep"
    PAYLOAD_INVALID = "payload_invalid"
    ORIGIN_INVALID = "origin_invalid"
    INTEGRATION_UNKNOWN = "integration_unknown"
    ENVIRONMENT_MISSING = "environment_missing"
    ENVIRONMENT_UNKNOWN = "environment_unknown"
    COHORT_ID_MISSING = "cohort_id_missing"
    COHORT_ID_INVALID = "cohort_id_invalid"
    CONTEXT_KIND_INVALID = "context_kind_invalid"
    CONTEXT_KIND_MISMATCH = "context_kind_mismatch"
    NO_MEMBERS_FIELD = "no_members_field"
    MEMBER_LIST_INVALID = "member_list_invalid"
    MEMBER_INVALID = "member_invalid"
    CONTEXT_KEY_MISSING = "context_key_missing"
    CONTEXT_KEY_INVALID = "context_key_invalid"
    CONTEXT_KEY_BLANK = "context_key_blank"
    CONTEXT_KEY_TOO_LONG = "context_key_too_long"
    CONTEXT_KEY_HASHED = "context_key_hashed"
    VALUE_MISSING = "value_missing"
    VALUE_INVALID = "value_invalid"
    MEMBERSHIP_VALUE_MISSING = "membership_value_missing"
    UNKNOWN_ACTION = "unknown_action"
    PAGE_INVALID = "page_invalid"
    REPLACE_INCOMPLETE = "replace_incomplete"
    STORE_REJECTED = "store_rejected"


class Ignored(StrEnum):
    """Why a valid record yields nothing. Not an error: it still moves the checkpoint."""

    COMPUTED_TRAIT = "computed_trait"
    NOT_AN_AUDIENCE = "not_an_audience"
    UNKNOWN_COMPUTATION_CLASS = "unknown_computation_class"
    NO_MEMBERS = "no_members"
    NO_MEMBERSHIP_CHANGE = "no_membership_change"
    OTHER_ENVIRONMENT = "other_environment"


class Reject(msgspec.Struct, frozen=True, gc=False):
    """One member (its zero-based place in the record), or with `place` None the whole record, that is not applied.

    `detail` names the JSON pointer and what is wrong there, never a value of the payload.
    """

    place: int | None
    reason: Reason
    detail: str
    cohorts: tuple[Cohort, ...] = ()
    """The cohorts that it would have joined or left, where that could be read."""


class InvalidRecord(Exception):
    """The whole record can never become deltas. It goes to the dead letters with this reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.cohorts: tuple[Cohort, ...] = ()


class KafkaUnavailableError(Exception):
    """No broker does it now: later, the same call may succeed. The text names no data."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"Kafka is not available: {cause}")
        self.cause = cause


class InvalidValue(InvalidRecord):
    """One value of a record cannot be used.

    Where it is a member's, whoever goes through the members rejects that one and goes on. Where nobody catches it, it
    is the record's own, and the record is invalid.
    """

    def within(self, pointer: str) -> InvalidValue:
        """The same problem, seen from a document that holds this one at the pointer."""
        detail = f"{pointer}{self.detail}" if self.detail.startswith("/") else f"{pointer}: {self.detail}"
        return InvalidValue(self.reason, detail).about(*self.cohorts)

    def about(self, *cohorts: Cohort) -> InvalidValue:
        """The same problem, of somebody who would have joined or left these cohorts."""
        self.cohorts = cohorts
        return self


class IgnoredRecord(Exception):
    """The whole record is skipped, for this reason."""

    def __init__(self, reason: Ignored, environment: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.environment = environment
        """What it is called where it is another one's."""


SENTENCES: dict[Reason | Ignored, str] = {
    Reason.VALUE_EMPTY: "The record has no value.",
    Reason.RECORD_TOO_LARGE: "The record is larger than limits.record_bytes.",
    Reason.JSON_INVALID: "The value is not valid JSON in UTF-8.",
    Reason.JSON_TOO_DEEP: "The JSON is nested deeper than limits.json_depth.",
    Reason.PAYLOAD_INVALID: "The JSON does not have the shape of the feed's format.",
    Reason.ORIGIN_INVALID: "The headers that say where a replayed record first arrived are incomplete or malformed.",
    Reason.INTEGRATION_UNKNOWN: "Neither the header nor the feed names an integration that is known.",
    Reason.ENVIRONMENT_MISSING: "Neither the payload, a header nor the feed names an environment.",
    Reason.ENVIRONMENT_UNKNOWN: "The environment is none of those in the configuration.",
    Reason.COHORT_ID_MISSING: "Nothing says which cohort it is about.",
    Reason.COHORT_ID_INVALID: "The id of the cohort is neither text nor an integer, or blank, or too long.",
    Reason.CONTEXT_KIND_INVALID: "The context kind has characters that no SDK accepts, or is a reserved word.",
    Reason.CONTEXT_KIND_MISMATCH: "The segment has members of another context kind.",
    Reason.NO_MEMBERS_FIELD: "The list of members is missing.",
    Reason.MEMBER_LIST_INVALID: "The list of members is not a list.",
    Reason.MEMBER_INVALID: "The member is not an object.",
    Reason.CONTEXT_KEY_MISSING: "The member has no id.",
    Reason.CONTEXT_KEY_INVALID: "The member's id is neither text nor an integer, or holds a NUL character.",
    Reason.CONTEXT_KEY_BLANK: "The member's id is blank.",
    Reason.CONTEXT_KEY_TOO_LONG: "The member's id is longer than limits.context_key_bytes.",
    Reason.CONTEXT_KEY_HASHED: "The member's id is hashed, so it is no context key; the feed does not ask for hashes.",
    Reason.VALUE_MISSING: "Nothing says whether the member is in or out.",
    Reason.VALUE_INVALID: "What should say whether the member is in or out says neither.",
    Reason.MEMBERSHIP_VALUE_MISSING: "The event has no value under the name of its audience.",
    Reason.UNKNOWN_ACTION: "The action is none that the integration has.",
    Reason.PAGE_INVALID: "What says which page of which replace session it is makes no sense, so it replaces nobody.",
    Reason.REPLACE_INCOMPLETE: "A member was not understood, so its page replaces nobody; those it names are added.",
    Reason.STORE_REJECTED: "The store refuses this delta for its data.",
    Ignored.COMPUTED_TRAIT: "The event is about a computed trait, not an audience.",
    Ignored.NOT_AN_AUDIENCE: "The event is about no audience.",
    Ignored.UNKNOWN_COMPUTATION_CLASS: "The event is about a computation that is no audience.",
    Ignored.NO_MEMBERS: "The record lists nobody.",
    Ignored.NO_MEMBERSHIP_CHANGE: "The record changes nobody's membership.",
    Ignored.OTHER_ENVIRONMENT: "The record is for an environment that this worker does not serve.",
}
"""Each reason, said to a person."""
