"""`jsonResponseBody` of manifests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.gateway.templates import Template, TemplateError

DOCUMENTED = (
    '{ "environmentId": "{{requestBody.environmentId}}", "segmentKey": "{{segmentKey}}", '
    '{{#if errorMessage}}"status":"failure", "error": {"message": "{{{errorMessage}}}", "code": {{statusCode}} }'
    '{{else}}"status": "success"{{/if}} }'
)


def rendered(template: str, **values: object) -> Any:
    return Template(template).render(values)


def test_the_documented_template_is_rendered_for_success_and_for_failure() -> None:
    body = {"environmentId": "abc"}

    assert rendered(DOCUMENTED, requestBody=body, segmentKey="amplitude-c1", statusCode=200) == {
        "environmentId": "abc",
        "segmentKey": "amplitude-c1",
        "status": "success",
    }
    failure = rendered(DOCUMENTED, requestBody=body, errorMessage='no "c1"\n', statusCode=400)
    assert failure["error"] == {"message": 'no "c1"\n', "code": 400}
    assert failure["segmentKey"] == ""


def test_values_are_escaped_for_json_and_never_for_html() -> None:
    assert rendered('{"a": "{{x}}", "b": "{{{x}}}"}', x="a&b\"'<\\\u2028") == {"a": "a&b\"'<\\\u2028"} | {
        "b": "a&b\"'<\\\u2028"
    }


@given(st.text())
def test_whatever_a_value_is_it_stays_one_value(text: str) -> None:
    assert rendered('{"a": "{{x}}"}', x=text) == {"a": text}


def test_blocks_may_be_nested_and_lists_gone_through() -> None:
    template = (
        "[{{#each xs}}{{#if @index}},{{/if}}"
        '{{#unless this.out}}"{{this.id}}"{{else}}{{#if y}}1{{else}}2{{/if}}{{/unless}}{{/each}}]'
    )

    assert rendered(template, xs=[{"id": "a"}, {"out": True}, {"id": "c"}], y=False) == ["a", 2, "c"]
    assert rendered('[{{#each xs}}1{{else}}"none"{{/each}}]', xs=[]) == ["none"]
    assert rendered('{"a": "{{xs.1}}", "b": "{{xs.9}}", "c": "{{xs.x}}"}', xs=["p", "q"]) == {
        "a": "q",
        "b": "",
        "c": "",
    }


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{#if a}}", "is not closed"),
        ("{{/if}}", "closes no block"),
        ("{{#if a}}{{/each}}", "closes no block"),
        ("{{#with a}}{{/with}}", "none of the blocks"),
        ("{{> partial}}", "is no path"),
        ("{{helper a b}}", "is no path"),
        ("{{a.__class__.x()}}", "is no path"),
        ("{{a}}" * 300, "more than"),
        ("{{#if a}}" * 20 + "{{/if}}" * 20, "nested deeper"),
    ],
)
def test_what_is_not_understood_is_refused_when_it_is_loaded(template: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        Template(template)


def test_a_path_leads_only_into_what_it_is_given() -> None:
    assert rendered('"{{x.__class__}}{{x.items}}{{__builtins__}}"', x={"a": 1}) == ""


def test_output_and_work_are_bounded_and_what_is_no_json_is_told() -> None:
    with pytest.raises(TemplateError, match="too large"):
        rendered('"{{x}}"', x="a" * 100_000)
    with pytest.raises(TemplateError, match="too many steps"):
        rendered("{{#each x}}{{#each x}}{{#each x}} {{/each}}{{/each}}{{/each}}", x=list(range(100)))
    with pytest.raises(TemplateError, match="not JSON"):
        rendered('{"a": {{x}}}', x=None)
    with pytest.raises(TemplateError, match="neither text"):
        rendered('{"a": {{x}}}', x={})
    assert json.dumps(rendered('{"a": {{x}}}', x=True)) == '{"a": true}'
