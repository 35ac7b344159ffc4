"""Renders `deploy/kustomize/base` from the Helm chart, for those who use Kustomize.

    python -m deploy.local.kustomize_base

The chart is the truth; `make deploy-check` fails where the base is no longer what comes out of it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.local.tools import tool

DEPLOY = Path(__file__).parents[1]
CHART = DEPLOY / "helm" / "cohort-sync"
VALUES = DEPLOY / "kustomize" / "values.yaml"
BASE = DEPLOY / "kustomize" / "base" / "cohort-sync.yaml"
HEADER = "# Rendered from deploy/helm by `python -m deploy.local.kustomize_base`: change it there.\n"


def rendered() -> str:
    """What the file holds."""
    command = [str(tool("helm")), "template", "cohort-sync", str(CHART), f"--values={VALUES}", "--skip-tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    for document in documents:
        _tell_others_of_the_hook(document)
        for metadata in _metadata(document):
            _forget_helm(metadata)
    documents.sort(key=lambda document: (document["kind"], document["metadata"]["name"]))
    return HEADER + yaml.safe_dump_all(documents, sort_keys=False, width=120)


def _tell_others_of_the_hook(document: dict[str, Any]) -> None:
    """What Helm does before an upgrade, Argo CD does before a sync; Flux must make a Job anew, as none can change."""
    annotations = document["metadata"].get("annotations", {})
    if "pre-upgrade" not in annotations.get("helm.sh/hook", ""):
        return
    annotations["argocd.argoproj.io/hook"] = "PreSync"
    annotations["argocd.argoproj.io/hook-delete-policy"] = "BeforeHookCreation"
    annotations["argocd.argoproj.io/sync-wave"] = annotations.get("helm.sh/hook-weight", "0")
    if document["kind"] == "Job":
        annotations["kustomize.toolkit.fluxcd.io/force"] = "enabled"


def _metadata(node: Any) -> Iterator[dict[str, Any]]:
    """Of the object and of the pods that it makes."""
    if isinstance(node, dict):
        if isinstance(found := node.get("metadata"), dict):
            yield found
        for each in node.values():
            yield from _metadata(each)


def _forget_helm(metadata: dict[str, Any]) -> None:
    metadata.pop("namespace", None)
    for part in ("labels", "annotations"):
        kept = {
            name: value
            for name, value in metadata.get(part, {}).items()
            if not name.startswith("helm.sh/") and name != "app.kubernetes.io/managed-by"
        }
        if kept:
            metadata[part] = kept
        else:
            metadata.pop(part, None)


if __name__ == "__main__":
    BASE.write_text(rendered())
