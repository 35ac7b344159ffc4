"""A small part of `make fuzz`, and that it notices what it is there to notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.errors import InvalidRecord, Reason
from consumers.feeds import Limits
from consumers.formats import known_integrations
from consumers.normalize import Normalized
from tests.builders import a_record
from tests.fuzz.inputs import Input, Readers, Setting
from tests.fuzz.promises import BrokenPromiseError, Promises
from tests.fuzz.removals import document_of, empties, leaves
from tests.fuzz.run import Fuzz, tried_again
from tests.fuzz.samples import GOLDEN, golden_samples, scanned
from tests.unit.consumers.meaning import NOW_MS, a_feed, a_normalizer, as_json

SETTING = Setting(environments="none listed", limits=Limits(), skip_unknown_environment=False)
PAYLOAD = {"batch": [{"userId": "someone-7f3a9c", "value": value, "cohortId": "c1"} for value in (True, False)]}


def an_input(payload: object = PAYLOAD, integration: str = "amplitude") -> Input:
    return Input(
        number=0, integration=integration, value=as_json(payload), feed=a_feed(format=integration), setting=SETTING
    )


def read(made: Input) -> Normalized:
    return a_normalizer().normalize(made.record(), made.feed, arrived_ms=NOW_MS, position=7)


def test_two_thousand_inputs_break_no_promise() -> None:
    fuzz = Fuzz(seed=20_231_123)

    assert [finding for finding in fuzz.findings(2_000) if finding] == []
    assert min(fuzz.outcomes["read"], fuzz.outcomes["ignored"], fuzz.outcomes["refused"]) > 100


def test_a_seed_always_makes_the_same_inputs() -> None:
    first, second = Fuzz(seed=5), Fuzz(seed=5)

    assert not any((*first.findings(300), *second.findings(300)))
    assert first._inputs.made(0)[0] == second._inputs.made(0)[0]


def test_every_format_has_payloads_to_begin_with() -> None:
    assert all(golden_samples(known_integrations()).values())


def test_a_sample_knows_where_everything_stands() -> None:
    sample = scanned(b'{"a":[1,{"b":"x,y"}],"c":{}}')

    def texts(spans: list[tuple[int, int]]) -> list[bytes]:
        return [sample.text[start:stop] for start, stop in spans]

    assert texts(sample.values) == [b"1", b'"x,y"', b'{"b":"x,y"}', b'[1,{"b":"x,y"}]', b"{}", sample.text]
    assert texts(sample.items) == [b"1", b'"b":"x,y"', b'{"b":"x,y"}', b'"a":[1,{"b":"x,y"}]', b'"c":{}']
    assert texts(sample.names) == [b'"a"', b'"b"', b'"c"']


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_removals_of_golden_payloads_are_spelled_out_and_their_additions_are_not(path: Path) -> None:
    case = json.loads(path.read_text())
    value, integration = as_json(case["payload"]), path.parent.name
    try:
        result = a_normalizer().normalize(
            a_record(value, timestamp_ms=NOW_MS), a_feed(**case["feed"]), arrived_ms=NOW_MS, position=7
        )
    except InvalidRecord:
        return
    document = document_of(value)
    for group in result.groups:
        for key, place in zip(group.context_keys, group.places, strict=True):
            assert leaves(integration, document, place, key) is not group.included
            assert not leaves(integration, document, place, key + "x")
    if (cleared := result.clearing) is not None:
        cohort_id, replaces = cleared.cohort.cohort_id, cleared.page is not None
        assert empties(integration, document, cohort_id, None, replaces=replaces)
        assert not empties(integration, document, cohort_id, None, replaces=not replaces)
        assert not empties(integration, document, cohort_id + "x", None, replaces=replaces)


def broken(made: Input, result: Normalized, **changes: Any) -> str:
    """Which promise a result breaks that has been changed like this."""
    changed = msgspec.structs.replace(result.groups[0], **changes)
    groups = [changed, *result.groups[1:]]
    with pytest.raises(BrokenPromiseError) as problem:
        Promises().kept(made, msgspec.structs.replace(result, groups=groups))
    return str(problem.value)


def test_what_must_not_be_is_noticed() -> None:
    made = an_input({"batch": [{"userId": f"u{each}", "value": each > 0, "cohortId": "c1"} for each in range(3)]})
    result = read(made)
    Promises().kept(made, result)

    # The first group has who leaves: u0.
    assert broken(made, result, context_keys=["u3"]) == "a removal is not spelled out"
    assert broken(made, result, context_keys=["u0", "u0"], places=[0, 0]) == "a context is twice in a group"
    assert broken(made, result, context_keys=["u0", "u1"]) == "keys and places are not as many, or none"
    assert broken(made, result, included=True, context_keys=["u1"]) == "a context is in two groups of one segment"
    assert broken(made, result, places=[3]) == "a place is outside of the record"
    assert broken(made, result, context_keys=["x" * 513]) == "a key is too long"
    assert broken(made, result, context_keys=[" "]) == "a key is blank or holds NUL"
    assert broken(made, result, context_keys=["\ud800"]).startswith("the result cannot be written as JSON")


def test_a_detail_that_quotes_a_key_is_noticed() -> None:
    with pytest.raises(BrokenPromiseError, match="quotes"):
        Promises().refused(an_input(), "/batch/0/userId: someone-7f3a9c is no id")
    Promises().refused(an_input(), "/batch/0/userId is no id")


def test_a_long_way_that_ends_elsewhere_is_noticed() -> None:
    result = read(an_input())

    def otherwise() -> Normalized:
        return msgspec.structs.replace(result, members=7)

    def refusing() -> Normalized:
        raise InvalidRecord(Reason.NO_MEMBERS_FIELD, "/batch is missing")

    Promises().same(result, lambda: result)
    for way in (otherwise, refusing):
        with pytest.raises(BrokenPromiseError, match="long way"):
            Promises().same(result, way)


def test_an_exception_is_a_finding_that_can_be_read_again(tmp_path: Path) -> None:
    class Failing:
        def normalize(self, *_arguments: object, **_others: object) -> Normalized:
            raise KeyError("x")

    failing: Any = Failing()
    finding = Fuzz(seed=0).tried(an_input(), Readers(failing, failing))

    assert finding is not None
    assert finding.problem == "KeyError is not caught"
    assert "seed 3, input 0, format amplitude" in finding.described(3)
    assert tried_again(finding.saved(tmp_path, 3)) is None
