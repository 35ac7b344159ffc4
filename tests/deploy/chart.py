"""Renders the chart with the real Helm, and looks into what comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.local import tools
from tests.deploy.programs import CHART, ROOT, run_tool

Manifest = dict[str, Any]
EVERYTHING = ROOT / "tests" / "deploy" / "everything.yaml"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def render(
    *files: Path, changes: Mapping[str, Any] | None = None, release: str = "demo", namespace: str = "cohorts"
) -> str:
    """The manifests, as text. A change is a value by its path, as in `worker.replicas`."""
    said = [f"--set-json={path}={json.dumps(value)}" for path, value in (changes or {}).items()]
    values = [f"-f{file}" for file in files]
    return run_tool("helm", "template", release, CHART, f"--namespace={namespace}", *values, *said)


def manifests(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def pods(found: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The specification of every pod, by the name of what makes it."""
    for manifest in found:
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["name"], manifest["spec"]
        elif manifest["kind"] in {"Deployment", "Job"}:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "CronJob":
            yield manifest["metadata"]["name"], manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def conform(text: str) -> str:
    """Refuses what a Kubernetes of the pinned version would not understand; tells how many resources it saw."""
    location = f"{tools.schemas()}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    return run_tool("kubeconform", "-strict", "-summary", "-schema-location", location, "-", text=text)


def leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its path: all that is no filled object."""
    for name, value in values.items():
        path = f"{before}.{name}".lstrip(".")
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        else:
            yield path, value
