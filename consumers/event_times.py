"""The clocks of sources, in microseconds since 1970. One that cannot be read is no clock, and no reason to reject."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,15}))?")


def from_epoch_seconds(value: object) -> int | None:
    """From seconds as a number, or as text, with or without a fraction."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    parts = _SECONDS.fullmatch(str(value))
    if parts is None:
        return None
    return _after_epoch(int(parts[1]) * 1_000_000 + int((parts[2] or "").ljust(6, "0")[:6]))


def from_epoch_milliseconds(value: object) -> int | None:
    """Likewise, from milliseconds."""
    thousandfold = from_epoch_seconds(value)
    return None if thousandfold is None else _after_epoch(thousandfold // 1_000)


def from_rfc3339(value: object) -> int | None:
    """From a date and time with its offset. Without an offset it says no time."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = datetime.fromisoformat(value.upper())  # "t" and "z" are allowed too
        except ValueError:
            return None
    if moment.tzinfo is None:
        return None
    since = moment - _EPOCH  # dividing it by a microsecond would cost more than all the rest
    return _after_epoch((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _after_epoch(time_us: int) -> int | None:
    # Zero, in either calendar, is how programs write a time that they do not know.
    return time_us if time_us > 0 else None
