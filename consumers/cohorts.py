"""Which cohort a member belongs to: the one it names itself, or else the record's, or else the feed's."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from consumers import values
from consumers.errors import InvalidValue, Reason
from consumers.feeds import Feed
from consumers.values import MISSING
from stores.model import Cohort

Named = tuple[object, object, object]
"""Id, name and link of a cohort as a payload gives them; any of them may be missing or of the wrong type."""


def cohort_of_record(integration: str, feed: Feed, named: Named, pointer: str) -> Cohort:
    """The cohort of the whole record, by what it names. Raises `InvalidValue` without a good id."""
    cohort_id, name, url = named
    if feed.cohort_id is not None and (cohort_id is MISSING or cohort_id is None):
        return Cohort(integration, feed.cohort_id, values.cohort_name(name) or feed.cohort_name, values.cohort_url(url))
    return Cohort(integration, values.cohort_id(cohort_id, pointer), values.cohort_name(name), values.cohort_url(url))


def cohort_of_member(shared: Cohort | InvalidValue, integration: str, named: Named, pointer: str) -> Cohort:
    """The cohort of one member, where `shared` is the record's or what is wrong with that.

    An id of its own always wins, and one that is unusable is never replaced by the record's: that could be another
    cohort. The record's name and link are only those of the record's cohort.
    """
    cohort_id, name, url = named
    if cohort_id is not MISSING and cohort_id is not None:
        own = Cohort(
            integration, values.cohort_id(cohort_id, pointer), values.cohort_name(name), values.cohort_url(url)
        )
    elif isinstance(shared, Cohort):
        own = Cohort(integration, shared.cohort_id, values.cohort_name(name), values.cohort_url(url))
    elif shared.reason is Reason.COHORT_ID_MISSING:
        raise InvalidValue(shared.reason, f"{pointer} is missing, and the record names no cohort either")
    else:
        raise InvalidValue(shared.reason, f"it names no cohort, and of the record {shared.detail}")
    return merged(own, shared) if isinstance(shared, Cohort) and shared.cohort_id == own.cohort_id else own


def merged(known: Cohort, other: Cohort) -> Cohort:
    """The same cohort with what only the other says about it: any member may carry the name or the link."""
    if (known.name or not other.name) and (known.url or not other.url):
        return known
    return Cohort(known.integration, known.cohort_id, known.name or other.name, known.url or other.url)


def named_by_any(cohort: Cohort, names: Sequence[object], urls: Sequence[object]) -> Cohort:
    """The cohort with the first name and link in these columns, where it has none itself."""
    if cohort.name is None and any(names):
        cohort = msgspec.structs.replace(cohort, name=next(filter(None, map(values.cohort_name, names)), None))
    if cohort.url is None and any(urls):
        cohort = msgspec.structs.replace(cohort, url=next(filter(None, map(values.cohort_url, urls)), None))
    return cohort
