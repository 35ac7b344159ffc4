"""The chart on a real control plane: accepted under the restricted profile, installed, upgraded and rolled back."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import EVERYTHING, manifests, render
from tests.deploy.control_plane import ControlPlane
from tests.deploy.programs import CHART, ToolFailedError, run_tool

pytestmark = pytest.mark.timeout(300)

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
WAIT = ("--wait", "--timeout=120s")
FIXED = ("--set=worker.keda.enabled=false", "--set=gateway.autoscaling.enabled=false")
"""Without those who change the number of replicas."""
PRIORITY = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """One of a test's own in which only restricted pods may run."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": RESTRICTED}
    control_plane.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    control_plane.apply(json.dumps(PRIORITY))
    control_plane.wait_for("serviceaccounts", f"--namespace={name}", word="default")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("values", [[], [EVERYTHING]], ids=["defaults", "everything"])
def test_an_api_server_takes_every_object_under_the_restricted_profile(
    control_plane: ControlPlane, namespace: str, values: list[Path]
) -> None:
    found = manifests(render(*values))
    for manifest in found:
        manifest["metadata"]["namespace"] = namespace
    # Bare pods, as that of `helm test`, are refused where their account is not there already.
    accounts = [manifest for manifest in found if manifest["kind"] == "ServiceAccount"]
    control_plane.apply(yaml.safe_dump_all(accounts))

    said = control_plane.apply(yaml.safe_dump_all(found), "--dry-run=server")

    assert said.count("(server dry run)") == len(found)


def test_it_would_have_refused_a_pod_that_is_not_restricted(control_plane: ControlPlane, namespace: str) -> None:
    with pytest.raises(ToolFailedError, match="violates PodSecurity"):
        control_plane.kubectl("run", "x", "--image=x", f"--namespace={namespace}", "--dry-run=server")


def test_it_takes_the_kustomize_base(control_plane: ControlPlane, namespace: str) -> None:
    text = run_tool("kubectl", "kustomize", "deploy/kustomize/base")

    said = control_plane.apply(text, "--dry-run=server", f"--namespace={namespace}")

    assert said.count("(server dry run)") == len(manifests(text))


def test_a_release_is_installed_upgraded_and_rolled_back(control_plane: ControlPlane, namespace: str) -> None:
    def images() -> Counter[tuple[str, str]]:
        """Of all pods that stay: how many of a component run which version."""
        return Counter(
            (
                pod["metadata"]["labels"]["app.kubernetes.io/component"],
                pod["spec"]["containers"][0]["image"].rpartition(":")[2],
            )
            for pod in control_plane.get("pods", namespace)
            if "deletionTimestamp" not in pod["metadata"]
        )

    here = f"--namespace={namespace}"
    both = ["demo", str(CHART), here, f"--values={EVERYTHING}", *FIXED, *WAIT]
    control_plane.helm("install", *both, "--set=image.tag=v1")
    assert images() == {("worker", "v1"): 2, ("projector", "v1"): 2, ("gateway", "v1"): 2}

    control_plane.helm("upgrade", *both, "--set=image.tag=v2", "--set=projector.replicas=3")
    assert images() == {("worker", "v2"): 2, ("projector", "v2"): 3, ("gateway", "v2"): 2}

    control_plane.helm("rollback", "demo", "1", here, *WAIT)
    assert images() == {("worker", "v1"): 2, ("projector", "v1"): 2, ("gateway", "v1"): 2}
    assert [each["status"] for each in json.loads(control_plane.helm("history", "demo", here, "--output=json"))] == [
        "superseded",
        "superseded",
        "deployed",
    ]

    control_plane.helm("uninstall", "demo", here, *WAIT)
    kinds = "deployments,services,configmaps,secrets,serviceaccounts,jobs,pods,pdb,hpa,networkpolicies,ingresses"
    left = (each for each in control_plane.get(kinds, namespace) if "deletionTimestamp" not in each["metadata"])
    assert [each["metadata"]["name"] for each in left if each["metadata"]["name"].startswith("demo")] == []


@pytest.mark.parametrize("by", ["autoscaling", "keda"])
def test_workers_stay_as_many_when_scaling_is_turned_on_and_through_later_upgrades(
    control_plane: ControlPlane, namespace: str, by: str
) -> None:
    def workers() -> int:
        (found,) = control_plane.get("deployments", namespace)
        return int(found["spec"]["replicas"])

    def fewest() -> int:
        """Of all that a new number was ever given for."""
        said = (
            each["message"] for each in control_plane.get("events", namespace) if each["reason"] == "ScalingReplicaSet"
        )
        return min(int(message.split(" to ")[1].split()[0]) for message in said)

    here = f"--namespace={namespace}"
    both = ["demo", str(CHART), here, *WAIT]
    scaled = f"--set=worker.{by}.enabled=true"
    control_plane.helm("install", *both, "--set=worker.replicas=6")

    control_plane.helm("upgrade", *both, scaled)
    assert (workers(), fewest()) == (6, 6)
    control_plane.helm("upgrade", *both, scaled, "--set=commonLabels.again=yes", "--set=projector.replicas=3")
    assert workers() == 6

    # As an autoscaler does it.
    control_plane.kubectl("scale", "deploy/demo-cohort-sync-worker", "--replicas=7", here)
    control_plane.helm("upgrade", *both, scaled, "--set=image.tag=v2")
    assert workers() == 7
    control_plane.kubectl("scale", "deploy/demo-cohort-sync-worker", "--replicas=5", here)
    control_plane.helm("upgrade", *both, scaled, "--set=image.tag=v3")
    assert workers() == 5
    control_plane.helm("rollback", "demo", "4", here, *WAIT)
    assert workers() == 5


def test_notes_say_how_many_there_are_and_who_makes_tokens(control_plane: ControlPlane, namespace: str) -> None:
    scaled = ("--set=worker.keda.enabled=true", "--set=worker.keda.minReplicas=4", "--set=gateway.enabled=true")

    said = control_plane.helm("install", "demo", CHART, f"--namespace={namespace}", *scaled, "--dry-run=server")

    assert "4 to 8 workers, 2 gateways." in said
    assert "deploy/demo-cohort-sync-worker -- cohort-sync tokens create" in said


def test_the_schema_is_migrated_before_anything_runs(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.helm("install", "demo", CHART, f"--namespace={namespace}", *WAIT)

    reasons = control_plane.get("events", namespace)
    completed = [
        each for each in reasons if each["reason"] == "Completed" and "migrate" in each["involvedObject"]["name"]
    ]
    started = [each for each in reasons if each["reason"] == "ScalingReplicaSet"]
    assert completed
    assert started
    assert completed[0]["metadata"]["creationTimestamp"] <= started[0]["metadata"]["creationTimestamp"]
