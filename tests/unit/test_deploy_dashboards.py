"""The dashboards ask for what is measured, and say what it is in and what to look for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from deploy.local.dashboards import DASHBOARDS, FOLDER, text_of
from tests.exported_metrics import asked_for, defined_names
from tests.unit.test_deploy_alerts import RULES

FILES = sorted(FOLDER.glob("*.json"))
RECORDED = {rule["record"] for rule in RULES if "record" in rule}

each_file = pytest.mark.parametrize("name", [file.stem for file in FILES])


def read(name: str) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return dashboard


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in read(name)["panels"] if panel["type"] != "row"]


def expressions(name: str) -> list[str]:
    return [target["expr"] for panel in panels(name) for target in panel["targets"]]


def test_the_files_are_those_that_are_written() -> None:
    assert {file.stem: file.read_text() for file in FILES} == {name: text_of(name) for name in DASHBOARDS}


@each_file
def test_every_metric_that_is_asked_for_is_measured_or_recorded(name: str) -> None:
    assert asked_for(expressions(name)) - defined_names() - RECORDED == set()


@each_file
def test_every_panel_has_a_unit_a_sentence_and_the_chosen_data_source(name: str) -> None:
    for panel in panels(name):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in [panel, *panel["targets"]]} == {"${datasource}"}


@each_file
def test_rates_follow_the_zoom_and_everything_the_namespace(name: str) -> None:
    for expression in expressions(name):
        assert set(re.findall(r"\[(.+?)\]", expression)) <= {"$__rate_interval", "15m", "1h"}
        assert expression.count("{namespace=~") == len(re.findall(r"(?:cohort_sync|process)[\w:]+\{", expression))


@each_file
def test_lines_and_bars_are_told_apart_by_namespace_and_named_by_it(name: str) -> None:
    for panel in panels(name):
        if panel["type"] == "stat":
            continue
        for target in panel["targets"]:
            groups = re.findall(r"by \((.+?)\)", target["expr"])
            assert [group for group in groups if "namespace" not in group.split(", ")] == [], panel["title"]
            assert not re.search(r"\b(?:sum|max|min|avg|count)\(", target["expr"]), panel["title"]
            assert target["legendFormat"].startswith("{{namespace}}")


def test_a_share_that_is_too_small_is_red_and_not_green() -> None:
    for panel in panels("overview"):
        if panel["title"].startswith("Stored within a minute"):
            steps = [(step["value"], step["color"]) for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
            assert steps == [(None, "red"), (0.99, "green")]


@each_file
def test_panels_do_not_overlap_and_ids_are_unique(name: str) -> None:
    found = read(name)["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in found)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in found}) == len(found)
