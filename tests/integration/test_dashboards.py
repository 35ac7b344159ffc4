"""What the dashboards and alerts ask for is what the running processes export."""

from __future__ import annotations

import json

from deploy.local.valkey import Valkey
from tests.exported_metrics import asked_for, names_in
from tests.unit.test_deploy_alerts import RULES
from tests.unit.test_deploy_dashboards import FILES, expressions
from tests.worker_process import Bench, ServiceProcess, eventually, webhook


async def test_every_metric_of_a_dashboard_or_alert_is_exported_by_the_running_processes(
    bench: Bench, valkey: Valkey
) -> None:
    bench.settings["projections"] = [{"name": "sdk", "type": "redis", "environment": "production", "url": valkey.url}]
    await bench.publish(bench.webhook_topic, webhook("c1", "u1", "u2"))
    worker = bench.start_worker()
    gateway = bench.start_gateway()
    projector = ServiceProcess("project", config=bench.config, log=bench.folder / "projector.log")
    try:

        async def everything_reported() -> str | None:
            scraped = "\n".join([(await process.get("/metrics")).text for process in (worker, gateway, projector)])
            return scraped if "cohort_sync_projection_synchronized_on_timestamp_seconds{" in scraped else None

        scraped = await eventually(everything_reported)
    finally:
        projector.kill()

    recorded = {rule["record"] for rule in RULES if "record" in rule} | {"cohort_sync:feed_cadence_seconds"}
    asked = asked_for([*(rule["expr"] for rule in RULES), *(e for file in FILES for e in expressions(file.stem))])
    assert len(asked) > 30
    assert asked - recorded - names_in(scraped) == set()
    assert 'le="60.0"' in scraped
    assert json.loads((await worker.get("/healthz")).text)["live"] is True
