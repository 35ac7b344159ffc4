"""Which segment a cohort is synced to: its key is `<integration>-<cohort id>`, as LaunchDarkly writes it."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from functools import lru_cache

from stores.model import SegmentKey

SLUG_CHARACTERS = 64
_CACHED_KEYS = 4096

_KEY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NOT_OF_KEYS = re.compile(r"[^a-zA-Z0-9_.-]+")
_HASH_BYTES = 10
_ENDS_LIKE_A_SLUG = re.compile(r".*--[a-z2-7]{16}", re.DOTALL)


@lru_cache(maxsize=_CACHED_KEYS)
def segment_of(environment: str, integration: str, cohort_id: str) -> SegmentKey:
    """The segment of this cohort in this environment. Two cohorts never share one."""
    return SegmentKey(environment, segment_key(integration, cohort_id))


def segment_key(integration: str, cohort_id: str) -> str:
    """The key of this cohort's segment in any environment."""
    return f"{integration}-{_as_key(cohort_id)}"


def _as_key(cohort_id: str) -> str:
    # An id that looks like a slug is made one too, or it would meet the id whose slug it is.
    if _KEY.fullmatch(cohort_id) and not _ENDS_LIKE_A_SLUG.fullmatch(cohort_id):
        return cohort_id
    return f"{_slug(cohort_id)}--{_short_hash(cohort_id)}"


def _slug(cohort_id: str) -> str:
    letters = unicodedata.normalize("NFKD", cohort_id)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return _NOT_OF_KEYS.sub("-", plain).strip("-_.")[:SLUG_CHARACTERS] or "cohort"


def _short_hash(cohort_id: str) -> str:
    digest = hashlib.blake2b(cohort_id.encode(), digest_size=_HASH_BYTES).digest()
    return base64.b32encode(digest).decode().lower()
