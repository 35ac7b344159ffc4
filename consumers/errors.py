"""Why something that arrived is not applied: the closed lists that become metric labels, headers and sentences."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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
    VALUE_MISSING = "value_missing"
    VALUE_INVALID = "value_invalid"
    MEMBERSHIP_VALUE_MISSING = "membership_value_missing"
    UNKNOWN_ACTION = "unknown_action"
    STORE_REJECTED = "store_rejected"


class Ignored(StrEnum):
    """Why a valid record yields nothing. Not an error: it still moves the checkpoint."""

    COMPUTED_TRAIT = "computed_trait"
    NOT_AN_AUDIENCE = "not_an_audience"
    UNKNOWN_COMPUTATION_CLASS = "unknown_computation_class"
    NO_MEMBERS = "no_members"
    OTHER_ENVIRONMENT = "other_environment"


class Reject(msgspec.Struct, frozen=True, gc=False):
    """One member (its zero-based place in the record), or with `place` None the whole record, that is not applied.

    `detail` names the JSON pointer and what is wrong there, never a value of the payload.
    """

    place: int | None
    reason: Reason
    detail: str


class InvalidRecord(Exception):  # noqa: N818 - the field's word for it, and the type is the message
    """The whole record can never become deltas. It goes to the dead letters with this reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class KafkaUnavailableError(Exception):
    """No broker does it now: later, the same call may succeed. The text names no data."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"Kafka is not available: {cause}")
        self.cause = cause


class InvalidValue(InvalidRecord):
    """One value of a record cannot be used.

    Where it is a member's, whoever goes through the members rejects that one and goes on. Where nobody catches it, it is
    the record's own, and the record is invalid.
    """

    def within(self, pointer: str) -> InvalidValue:
        """The same problem, seen from a document that holds this one at the pointer."""
        detail = f"{pointer}{self.detail}" if self.detail.startswith("/") else f"{pointer}: {self.detail}"
        return InvalidValue(self.reason, detail)


class IgnoredRecord(Exception):  # noqa: N818 - not an error: the record is valid and yields nothing
    """The whole record is skipped, for this reason."""

    def __init__(self, reason: Ignored) -> None:
        super().__init__(reason)
        self.reason = reason
