"""Feeds: which topic carries which wire format, and what the format itself does not say."""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256

import msgspec

from stores.model import DEFAULT_CONTEXT_KIND


class ContextKeyRule(StrEnum):
    """Which identifiers of a Segment profile may be the context key, tried in order."""

    USER_ID = "user_id"
    USER_ID_OR_EMAIL = "user_id_or_email"
    USER_ID_OR_ANONYMOUS_ID = "user_id_or_anonymous_id"
    USER_ID_OR_EMAIL_OR_ANONYMOUS_ID = "user_id_or_email_or_anonymous_id"
    EMAIL = "email"
    ANONYMOUS_ID = "anonymous_id"


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A source of records: topics (by name, or by pattern), their format, and the defaults for what payloads omit."""

    name: str
    format: str
    topics: tuple[str, ...] = ()
    topic_pattern: str | None = None
    environment: str | None = None
    context_kind: str = DEFAULT_CONTEXT_KIND
    context_key: str = ContextKeyRule.USER_ID
    cohort_id: str | None = None
    cohort_name: str | None = None

    def carries(self, topic: str) -> bool:
        """Whether records of this topic belong to this feed."""
        return topic in self.topics or (
            self.topic_pattern is not None and re.fullmatch(self.topic_pattern, topic) is not None
        )


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """An environment by all the names that a payload may call it."""

    key: str
    project: str | None = None
    client_side_id: str | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of what a record may hold; beyond them it, or the member, is rejected."""

    context_key_bytes: int = 512
    record_bytes: int = 8_388_608
    json_depth: int = 100
    future_skew_s: int = 300


class Environments:
    """Finds the environment that a payload means, by key or client-side id."""

    def __init__(self, listed: tuple[Environment, ...] = ()) -> None:
        self._keys = {e.client_side_id: e.key for e in listed if e.client_side_id} | {e.key: e.key for e in listed}

    def find_listed(self, name: object) -> str | None:
        """The environment's key, or None for every name that is not one of the listed ones."""
        is_name = isinstance(name, str | int) and not isinstance(name, bool)
        return self._keys.get(str(name)) if is_name else None

    def find(self, name: str) -> str | None:
        """The environment's key, or None where it is not one of ours. With none listed, any name is taken as it is."""
        return self._keys.get(name) if self._keys else name

    def fingerprint(self) -> bytes:
        """The same for those that find the same. Short, since each member of a consumer group tells it."""
        return sha256(msgspec.json.encode(sorted(self._keys.items()))).digest()[:16]
