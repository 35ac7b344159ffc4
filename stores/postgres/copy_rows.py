"""Groups of deltas as the bytes of PostgreSQL's binary COPY, for the table `stage`.

Written by hand because it is the hottest loop of the project: what is the same for a group is packed once, so that
a delta costs one hash and one concatenation. Source of the format: PostgreSQL's documentation of COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from struct import Struct
from uuid import UUID

from stores.model import DeltaGroup

COLUMNS = ("segment_id", "context_hash", "context_key", "included", "event_time", "position")

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
_TRAILER = b"\xff\xff"
_HASH_BYTES = 16

_BEFORE_KEY = Struct(f"!hiii{_HASH_BYTES}si")  # number of columns; segment_id and hash with their lengths; key's length
_AFTER_KEY = Struct("!i?iqiq")  # included, event_time and position, each with its length


def copy_rows(groups: Iterable[tuple[int, DeltaGroup]]) -> bytes:
    """All deltas of the groups, each group with the id of its segment, as one COPY stream."""
    rows = [_HEADER]
    before_key = _BEFORE_KEY.pack
    for segment_id, group in groups:
        version = group.version
        after_key = _AFTER_KEY.pack(1, group.included, 8, version.event_time_us, 8, version.position)
        for context_key in group.context_keys:
            key = context_key.encode()
            # Packing into 16 bytes cuts the digest to what `context_hash` gives.
            rows += before_key(len(COLUMNS), 4, segment_id, _HASH_BYTES, sha256(key).digest(), len(key)), key, after_key
    rows.append(_TRAILER)
    return b"".join(rows)


def context_hash(context_key: str) -> bytes:
    """What identifies a context in the primary key. Keys come from outside, so the hash is a cryptographic one."""
    return sha256(context_key.encode()).digest()[:_HASH_BYTES]


def context_id(context_key: str) -> UUID:
    """The same as queries take it."""
    return UUID(bytes=context_hash(context_key))
