"""What is shown of a record that names people who were erased."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.record import Record
from tests.builders import a_record
from worker.commands.withholding import UnreadableError, texts_of, without

KEYS = st.sampled_from(["alan@example.com", "u 1", "grüße", "1234567890123456789012", "a/b", 'a|b "c" <d>', "a🎈\\"])
SCALARS = st.one_of(KEYS, st.integers(), st.booleans(), st.none(), st.text(max_size=5))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(KEYS, st.text(max_size=3)), inner, max_size=4),
        inner.map(json.dumps),
    ),
    max_leaves=20,
)


def shown_of(record: Record, erased: set[str]) -> Record | None:
    """What `without_erased` makes of it, where somebody was erased."""
    try:
        among = texts_of(record) & erased
    except UnreadableError:
        return None
    return without(record, among) if among else record


def decodings(text: str) -> list[str]:
    """The text, and what it is to those who decode escapes, or look only at strings, once and again."""
    found = [text]
    for _ in range(3):
        halves = re.sub(r"\\u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), found[-1])
        whole = halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        found.append(re.sub(r"\\(.)", r"\1", whole))
    return found


@st.composite
def spoilt(draw: st.DrawFn, key: str) -> bytes:
    """A valid record with this key, with escapes, a name twice, and cut somewhere; each or none of it."""
    user: object = draw(st.sampled_from([{"user_id": key}, {key: True}, key, [key], json.dumps({"user_id": key})]))
    other = draw(st.sampled_from([{"user_id": "u2"}, "u2", 2.5, None]))
    text = json.dumps({"users": [user, other], "cohort": "c"}, ensure_ascii=draw(st.booleans()))
    escaped = draw(st.sets(st.sampled_from([each for each in key if each.isalnum()])))
    for each in escaped:
        inside = draw(st.booleans())
        text = text.replace(each, f"\\u{ord(each):04x}") if inside and ord(each) < 0x10000 else text
    if draw(st.booleans()):
        text = text[:-1] + draw(st.sampled_from([', "users": []}', ', "cohort": "d"}']))
    if draw(st.booleans()):
        text = text[: draw(st.integers(0, len(text)))]
    return text.encode()


@given(data=st.data(), key=KEYS)
def test_however_a_record_is_spoilt_nothing_shown_has_the_key_in_any_decoding(data: st.DataObject, key: str) -> None:
    places = st.sampled_from([key, f"production/{key}", f"production:user:{key}", "production/u2"])
    in_key, in_header = data.draw(places), data.draw(places)
    headers = (("about", in_header.encode()), ("dead-letter-at", b"now"))
    record = a_record(data.draw(spoilt(key)), key=in_key.encode(), headers=headers)

    kept = shown_of(record, {key})

    if kept is not None:
        parts = [kept.key, kept.value, *(value for _, value in kept.headers)]
        assert not [text for part in parts for text in decodings((part or b"").decode()) if key in text]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b'{"users": [], "users": ["alan smith"]}', id="the last of two"),
        pytest.param(b'{"users": ["alan smith"], "users": []}', id="the first of two"),
        pytest.param(b'{"users": ["alan smith", "u2"', id="cut"),
        pytest.param(b'{"users": ["alan\\u0020smi', id="cut within an escape"),
        pytest.param(b"alan|smith|u2", id="no JSON"),
        pytest.param(b'["alan\xff smith"]', id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b'["' + b"[" * 100_000 + b'"]', id="too deep within a string"),
    ],
)
def test_where_nobody_can_tell_who_is_named_all_is_kept_back(value: bytes) -> None:
    with pytest.raises(UnreadableError):
        texts_of(a_record(value))


@pytest.mark.parametrize("key", ["alan smith", "a/b/c", "a|b", "alan@example.com", "_x"])
def test_a_key_is_found_wherever_in_its_record_key_a_producer_puts_it(key: str) -> None:
    for text in (key, f"production/{key}", f"{key}/production", f"production_user_{key}", f'{{"id": "{key}"}}'):
        assert key in texts_of(a_record(b"{}", key=text.encode()))
        assert key in texts_of(a_record(b"{}", headers=(("h", text.encode()),)))


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


def test_what_we_wrote_into_headers_stays() -> None:
    ours = (("dead-letter-partition", b"1"), ("cohort-sync-original-offset", b"1"))

    kept = without(a_record(b"{}", headers=(*ours, ("theirs", b"1"))), {"1"})

    assert kept is not None
    assert kept.headers == ours
