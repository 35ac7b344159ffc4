"""What is shown of a record that names people who were erased."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_record
from worker.commands.withholding import texts_of, without

KEYS = st.sampled_from(["alan@example.com", "u 1", "grüße", "1234567890123456789012", "a/b"])
SCALARS = st.one_of(KEYS, st.integers(), st.booleans(), st.none(), st.text(max_size=5))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=3)), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(document=DOCUMENTS, erased=st.sets(KEYS, min_size=1))
def test_no_key_of_somebody_erased_is_left_in_any_document(document: object, erased: set[str]) -> None:
    record = a_record(json.dumps(document).encode(), key=b"production/alan@example.com")

    kept = without(record, erased)

    if kept is not None:
        assert erased.isdisjoint(texts_of(kept))


@given(document=DOCUMENTS)
def test_a_record_that_names_nobody_erased_stays_as_it_was(document: object) -> None:
    record = a_record(json.dumps(document, indent=3).encode(), key=b"production/x", headers=(("h", b"v"),))

    assert without(record, {"somebody else"}) == record


def test_every_key_in_a_document_is_asked_for() -> None:
    value = b'{"users": [{"user_id": "a b"}, {"user_id": 12345678901234567890}], "c": {"k": {"x": null}}}'
    texts = texts_of(a_record(value, key=b"production/who", headers=(("about", b"them"),)))

    assert {"a b", "12345678901234567890", "k", "who", "them"} <= texts


def test_an_entry_of_a_list_goes_with_all_that_it_says_of_the_person() -> None:
    batch = {"cohort": "c", "users": [{"id": "u1", "mail": "u1@example.com"}, {"id": "u2"}]}

    kept = without(a_record(json.dumps(batch).encode()), {"u1"})

    assert kept is not None
    assert json.loads(kept.value or b"") == {"cohort": "c", "users": [{"id": "u2"}]}


def test_a_record_that_is_no_list_is_all_about_the_person() -> None:
    event = {"type": "identify", "userId": "u1", "context": {"traits": {"email": "u1@example.com"}}}

    assert without(a_record(json.dumps(event).encode()), {"u1@example.com"}) is None


def test_what_is_no_json_is_withheld_as_a_whole() -> None:
    assert without(a_record(b'{"users": ["u1", "u2"'), {"u1"}) is None
    assert without(a_record(b'{"users": ["u1", "u2"'), {"u3"}) is not None


def test_what_we_wrote_into_headers_stays() -> None:
    ours = (("dead-letter-partition", b"1"), ("cohort-sync-original-offset", b"1"))

    kept = without(a_record(b"{}", headers=(*ours, ("theirs", b"1"))), {"1"})

    assert kept is not None
    assert kept.headers == ours
