"""The rules and dashboards, by the real promtool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import manifests
from tests.deploy.programs import CHART, ROOT, run_tool
from tests.unit.test_deploy_dashboards import FILES, expressions

MONITORING = ROOT / "deploy" / "monitoring"


def test_the_rules_are_rules() -> None:
    assert "SUCCESS" in run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", MONITORING / "alerts.yaml")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", ["alerts_test.yaml", "alerts_week_test.yaml"])
def test_each_alert_fires_when_it_must_and_only_then(file: str) -> None:
    run_tool("promtool", "test", "rules", MONITORING / file)


TWO_CELLS = """
rule_files: [cohorts.yaml, cohorts-2.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'cohort_sync_records_total{namespace="cohorts",feed="f"}', values: 5x200}
      - {series: 'cohort_sync_records_total{namespace="cohorts-2",feed="f"}', values: 5x200}
      - {series: 'cohort_sync_assigned_partitions{namespace="cohorts",job="w"}', values: 4x200}
      - {series: 'cohort_sync_assigned_partitions{namespace="cohorts-2",job="w"}', values: 4x10 stale}
    promql_expr_test:
      - expr: cohort_sync:feed_cadence_seconds
        eval_time: 160m
        exp_samples:
          - {labels: 'cohort_sync:feed_cadence_seconds{namespace="cohorts",feed="f"}', value: 3600}
          - {labels: 'cohort_sync:feed_cadence_seconds{namespace="cohorts-2",feed="f"}', value: 86400}
      - expr: count by (alertname, namespace, expected) (ALERTS{alertstate="firing"})
        eval_time: 160m
        exp_samples:
          - {labels: '{alertname="CohortSyncFeedSilent", namespace="cohorts"}', value: 1}
          - {labels: '{alertname="CohortSyncWorkerGone", namespace="cohorts-2"}', value: 1}
"""


def test_two_releases_in_one_prometheus_record_and_alert_each_for_itself(tmp_path: Path) -> None:
    for namespace, cadence_s in (("cohorts", 3600), ("cohorts-2", 86400)):
        rules = rules_of_a_release(namespace, cadence_s)
        assert rules.count('namespace=~".*"') == 0
        (tmp_path / f"{namespace}.yaml").write_text(rules)
    (tmp_path / "test.yaml").write_text(TWO_CELLS)

    run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", *sorted(tmp_path.glob("cohorts*.yaml")))
    run_tool("promtool", "test", "rules", tmp_path / "test.yaml")


def rules_of_a_release(namespace: str, cadence_s: int) -> str:
    """What its PrometheusRule says, as Prometheus is given it."""
    said = {
        "enabled": True,
        "runbook": "https://wiki.example.com/runbook",
        "feedCadenceSeconds": {"f": cadence_s},
    }
    set_so = [f"--set-json=monitoring.prometheusRule={json.dumps(said)}", f"--namespace={namespace}"]
    found: list[dict[str, Any]] = manifests(run_tool("helm", "template", "cohort-sync", CHART, *set_so))
    (spec,) = (each["spec"] for each in found if each["kind"] == "PrometheusRule")
    alerts = [rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule]
    assert {rule["annotations"]["runbook_url"].partition("#")[0] for rule in alerts} == {said["runbook"]}
    return yaml.safe_dump(spec)


def test_every_expression_of_the_dashboards_parses(tmp_path: Path) -> None:
    found = [expression for file in FILES for expression in expressions(file.stem)]
    plain = [each.replace("$namespace", ".*").replace("$__rate_interval", "5m") for each in found]
    rules = [{"record": f"expression_{number}", "expr": expression} for number, expression in enumerate(plain)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))

    assert f"{len(found)} rules found" in run_tool("promtool", "check", "rules", tmp_path / "rules.yaml")
