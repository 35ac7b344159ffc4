"""The alerts say what a person needs at night, ask for what is measured, and each has its test and its runbook entry.

That they fire, and don't, is shown by the real promtool: `make deploy-check`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.exported_metrics import asked_for, defined_names

DEPLOY = Path(__file__).parents[2] / "deploy"
GROUPS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
CADENCE = "cohort_sync:feed_cadence_seconds"
"""Whoever installs says how often a feed comes."""

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])


@each_alert
def test_an_alert_says_how_urgent_it_is_what_happened_and_what_that_means(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "impact", "runbook_url"}
    assert re.fullmatch(r"[A-Z].+\.", alert["annotations"]["impact"])


@each_alert
def test_an_alert_leads_to_its_entry_in_the_runbook(alert: dict[str, Any]) -> None:
    file, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (DEPLOY.parent / file).read_text(), re.MULTILINE)

    assert anchor == alert["alert"].lower()
    assert alert["alert"] in headings


@pytest.mark.parametrize("rule", RULES, ids=[rule.get("alert") or rule["record"] for rule in RULES])
def test_a_rule_asks_for_every_series_with_the_matcher_that_the_chart_makes_a_releases_own(
    rule: dict[str, Any],
) -> None:
    names = re.findall(r"\b(?:cohort_sync[_:]|process_)[a-z0-9_:]+", rule["expr"])

    assert len(names) == rule["expr"].count('{namespace=~".*"')


@each_alert
def test_an_alert_is_tested(alert: dict[str, Any]) -> None:
    assert alert["alert"] in (DEPLOY / "monitoring" / "alerts_test.yaml").read_text()


def test_rules_ask_only_for_what_is_measured_or_recorded() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}

    assert asked_for(rule["expr"] for rule in RULES) - defined_names() - recorded == {CADENCE}


def test_what_a_projection_may_be_late_is_told_before_the_sdks_notice() -> None:
    (expression,) = (alert["expr"] for alert in ALERTS if alert["alert"] == "CohortSyncProjectionStale")
    (interval,) = (group["interval"] for group in GROUPS if group["name"] == "cohort-sync-projections")

    assert float(expression.rsplit(">")[-1]) + float(interval.removesuffix("s")) < 120  # their `stale_after`
