"""The rules and dashboards, by the real promtool."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.deploy.programs import ROOT, run_tool
from tests.unit.test_deploy_dashboards import FILES, expressions

MONITORING = ROOT / "deploy" / "monitoring"


def test_the_rules_are_rules() -> None:
    assert "SUCCESS" in run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", MONITORING / "alerts.yaml")


def test_each_alert_fires_when_it_must_and_only_then() -> None:
    run_tool("promtool", "test", "rules", MONITORING / "alerts_test.yaml")


def test_every_expression_of_the_dashboards_parses(tmp_path: Path) -> None:
    found = [expression for file in FILES for expression in expressions(file.stem)]
    plain = [each.replace("$namespace", ".*").replace("$__rate_interval", "5m") for each in found]
    rules = [{"record": f"expression_{number}", "expr": expression} for number, expression in enumerate(plain)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))

    assert f"{len(found)} rules found" in run_tool("promtool", "check", "rules", tmp_path / "rules.yaml")
