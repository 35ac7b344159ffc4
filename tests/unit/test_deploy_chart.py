"""What of the chart needs no tool to be checked. The rest is `make deploy-check`."""

from __future__ import annotations

from deploy.local.chart_schema import CHART, schema_text


def test_the_schema_is_that_of_the_defaults_and_the_settings() -> None:
    assert (CHART / "values.schema.json").read_text() == schema_text()


def test_alerts_and_dashboards_of_the_chart_are_those_that_are_tested() -> None:
    monitoring = CHART.parents[1] / "monitoring"

    assert (CHART / "alerts.yaml").resolve() == monitoring / "alerts.yaml"
    assert (CHART / "dashboards").resolve() == monitoring / "dashboards"
