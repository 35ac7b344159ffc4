"""What checkov and hadolint say of the manifests and the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import EVERYTHING, render
from tests.deploy.programs import ROOT, run_tool

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
ACCEPTED = {
    "CKV_K8S_11": "a limit on CPU throttles the event loop, and Kafka takes the partitions of who misses heartbeats",
    "CKV_K8S_35": "AWS's own tools read keys from the environment; all else that is secret is a file",
}
ACCEPTED_OF_TEST_POD = {
    "CKV_K8S_8": "the pod of `helm test` checks once and ends",
    "CKV_K8S_9": "likewise",
}
DIGEST = "sha256:" + "0" * 64


def failed(folder: Path, framework: str) -> list[dict[str, Any]]:
    said = run_tool(
        "checkov",
        f"--directory={folder}",
        f"--framework={framework}",
        "--skip-download",
        "--output=json",
        "--soft-fail",
    )
    report = json.loads(said)
    assert report["summary"]["passed"] > 40
    assert report["summary"]["parsing_errors"] == 0
    found: list[dict[str, Any]] = report["results"]["failed_checks"]
    return found


@pytest.mark.parametrize("values", [[], [EVERYTHING]], ids=["defaults", "everything"])
def test_checkov_finds_nothing_but_what_is_meant_to_be(values: list[Path], tmp_path: Path) -> None:
    by_digest = {"image.digest": DIGEST, "image.pullPolicy": "Always"}
    (tmp_path / "manifests.yaml").write_text(render(*values, changes=by_digest))

    for check in failed(tmp_path, "kubernetes"):
        is_test_pod = check["resource"].endswith("-config-check")
        assert check["check_id"] in ACCEPTED | (ACCEPTED_OF_TEST_POD if is_test_pod else {}), check["resource"]


def test_checkov_would_have_found_a_container_that_may_write(tmp_path: Path) -> None:
    text = render().replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    (tmp_path / "manifests.yaml").write_text(text)

    assert "CKV_K8S_22" in {check["check_id"] for check in failed(tmp_path, "kubernetes")}


def test_hadolint_has_nothing_to_say_of_the_image() -> None:
    assert run_tool("hadolint", "--failure-threshold=style", DOCKERFILE) == ""


def test_compose_takes_its_file() -> None:
    assert "cohort-sync" in run_tool("compose-spec", ROOT / "deploy" / "compose.yaml")
