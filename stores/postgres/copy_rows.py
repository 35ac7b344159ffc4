"""Groups of deltas as the bytes of PostgreSQL's binary COPY, for the table `stage`.

Written by hand because it is the hottest loop of the project: what is the same for a whole group is packed once, so that
a delta costs one hash and one concatenation. Source of the format: PostgreSQL's documentation of COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from struct import Struct

from stores.model import DeltaGroup

COLUMNS = ("segment_id", "context_hash", "context_key", "included", "event_time", "position")

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
_TRAILER = b"\xff\xff"
_HASH_BYTES = 16

_BEFORE_HASH = Struct("!hiii")  # number of columns; segment_id with its length; the length of the hash
_KEY_LENGTH = Struct("!i")
_AFTER_KEY = Struct("!i?iqiq")  # included, event_time and position, each with its length


def copy_rows(groups: Iterable[tuple[int, DeltaGroup]]) -> bytes:
    """All deltas of the groups, each group with the id of its segment, as one COPY stream."""
    parts = [_HEADER]
    for segment_id, group in groups:
        parts += _group_rows(segment_id, group)
    parts.append(_TRAILER)
    return b"".join(parts)


def context_hash(context_key: str) -> bytes:
    """What identifies a context in the primary key. Keys come from outside, so the hash is a cryptographic one."""
    return sha256(context_key.encode()).digest()[:_HASH_BYTES]


def _group_rows(segment_id: int, group: DeltaGroup) -> list[bytes]:
    before_hash = _BEFORE_HASH.pack(len(COLUMNS), 4, segment_id, _HASH_BYTES)
    after_key = _AFTER_KEY.pack(1, group.included, 8, group.version.event_time_us, 8, group.version.position)
    key_length = _KEY_LENGTH.pack
    rows = []
    for context_key in group.context_keys:
        key = context_key.encode()
        rows.append(before_hash + sha256(key).digest()[:_HASH_BYTES] + key_length(len(key)) + key + after_key)
    return rows
