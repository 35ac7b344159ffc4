"""Every command of the runbook that speaks to Kubernetes, in its order, on a real control plane with a release."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from deploy.local import tools
from tests.deploy.control_plane import LOGGED, ControlPlane
from tests.deploy.programs import CHART
from tests.runbook import ON_KUBERNETES, RUNBOOK, commands, put_programs, run


@pytest.mark.timeout(600)
def test_every_command_of_the_runbook_does_what_it_should(control_plane: ControlPlane, tmp_path: Path) -> None:
    put_programs(tmp_path / "programs", {name: str(tools.tool(name)) for name in ON_KUBERNETES})
    environment = {
        "KUBECONFIG": str(control_plane.kubeconfig),
        "DSN": "postgresql://cohort_sync@postgres/cohort_sync",
        "DSN_2": "postgresql://cohort_sync@postgres-2/cohort_sync",
    }
    release = ("cohort-sync", CHART, "--namespace=cohorts", "--create-namespace", "--wait", "--timeout=120s")
    sdk = 'config.projections=[{"name": "sdk", "type": "redis", "environment": "production"}]'
    redis = "--set=credentials.projections.existingSecret=cohort-sync-redis"
    values = ("--set=projector.enabled=true", "--set=gateway.enabled=true", f"--set-json={sdk}", redis)
    control_plane.helm("install", *release, *values)

    for command in commands(ON_KUBERNETES):
        said = run(command, tmp_path / "programs", environment)
        # What is searched for something need not have it.
        assert LOGGED in said or " logs " not in command.line or " | " in command.line
        if "rollout restart" in command.line:
            time.sleep(1.1)  # a second one within the same second is refused

    # The last change may still be on its way, as after the commands a person waits for it too.
    control_plane.kubectl("rollout", "status", "deploy/cohort-sync-worker", "--namespace=cohorts", "--timeout=60s")
    (worker,) = (
        each
        for each in control_plane.get("deployments", "cohorts")
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"
    )
    assert worker["status"]["readyReplicas"] == 2
    assert {each["metadata"]["name"] for each in control_plane.get("deployments", "cohorts-2")} >= {
        "cohort-sync-worker",
        "cohort-sync-projector",
    }
    assert control_plane.get("secrets", "cohorts", "--field-selector=metadata.name=cohort-sync-postgres")
    aliases_reach_the_program_in_a_pod(control_plane)


def aliases_reach_the_program_in_a_pod(control_plane: ControlPlane) -> None:
    put_programs(control_plane.programs, {"cohort-sync": f"{sys.executable} -m worker"})
    aliases = dict(re.findall(r"`alias ([\w-]+)='([^']+)'`", RUNBOOK.read_text()))
    assert aliases.keys() == {"cohort-sync", "new-cell"}

    for command in aliases.values():
        program, *arguments = command.split()
        assert program == "kubectl"
        assert control_plane.kubectl(*arguments, "--version").startswith("cohort-sync ")
