"""What may be asked of a list of segments."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from stores.postgres.segments import SegmentFilter
from worker.gateway.answers import Refused
from worker.gateway.segment_queries import parse_query


def test_a_list_is_asked_as_launchdarkly_documents_it() -> None:
    text = 'query equals "Po, wer", tags anyOf ["a","b"],includedKeys anyOf ["u1"], external exists true'
    asked = parse_query(QueryParams({"filter": text, "sort": "name", "limit": "5", "offset": "10"}))

    assert asked.wanted == SegmentFilter("Po, wer", ["a", "b"], ["u1"])
    assert (asked.sort, asked.limit, asked.offset, asked.is_empty) == ("name", 5, 10, False)
    assert parse_query(QueryParams({"filter": 'includedKeys anyOf ["a]b\\"]"]'})).wanted.any_member == ['a]b"]']
    assert parse_query(QueryParams()).limit == 20
    assert parse_query(QueryParams({"filter": "unbounded equals false"})).is_empty
    assert parse_query(QueryParams({"filter": "query equals power"})).wanted.query == "power"


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "x"},
        {"limit": "-1"},
        {"limit": "101"},
        {"offset": "1e9"},
        {"sort": "size"},
        {"filter": "tags equals"},
        {"filter": 'tags equals "a"'},
        {"filter": "nonsense anyOf []"},
        {"filter": "tags anyOf [1]"},
        {"filter": 'tags anyOf ["a"'},
        {"filter": 'query equals "\\ud800"'},
        {"filter": 'includedKeys anyOf ["\\ud800"]'},
        {"filter": f"tags anyOf {'[' * 3_000}]"},
        {"filter": "a" * 5_000},
    ],
)
def test_what_is_not_understood_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(Refused):
        parse_query(QueryParams(parameters))
