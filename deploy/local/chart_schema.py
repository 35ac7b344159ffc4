"""Writes the chart's `values.schema.json`: from the defaults in `values.yaml`, and for `config` from the settings.

    python -m deploy.local.chart_schema

So Helm refuses a mistyped name or value before anything is installed. What a default is says what a value must be; an
empty object or list may hold anything, as Kubernetes checks it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import yaml

from stores.postgres.migrating import Part
from worker.settings import Settings

CHART = Path(__file__).parents[1] / "helm" / "cohort-sync"
DRAFT = "http://json-schema.org/draft-07/schema#"

SET_BY_THE_CHART = {
    "Settings": ("http", "manifests_dir"),
    "KafkaSettings": ("sasl_password", "sasl_password_file", "ssl_cafile", "ssl_certfile", "ssl_keyfile"),
    "PostgresSettings": ("dsn", "dsn_file", "sslmode", "sslrootcert", "sslcert", "sslkey"),
    "FeedSettings": ("webhook_secret", "webhook_secret_file"),
    "ProjectionSettings": ("url_file", "ssl_cafile", "ssl_certfile", "ssl_keyfile"),
    "GatewaySettings": ("host", "port"),
}
"""Settings that would have no effect, or put a secret into the values."""

CHOICES = {
    "image.pullPolicy": ["Always", "IfNotPresent", "Never"],
    "gateway.service.type": ["ClusterIP", "NodePort", "LoadBalancer"],
    "credentials.postgresTls.mode": ["require", "verify-ca", "verify-full"],
}
ITEMS: dict[str, dict[str, Any]] = {
    "migration.grants": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"part": {"enum": [*get_args(Part)]}, "role": {"type": "string", "minLength": 1}},
        "required": ["part", "role"],
    },
}
"""What is in lists that are ours and not Kubernetes'."""
FREE_MAPS = ("monitoring.dashboards.labels",)
"""Their defaults are not empty, but their names are the user's."""
REQUIRED = ("image.repository", "credentials.postgres.existingSecret", "credentials.postgres.key")
PLAIN: dict[type, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    str: {"type": "string"},
    list: {"type": "array"},
}
EITHER = ("podDisruptionBudget.maxUnavailable",)
"""A number, or a share such as 25%."""


def values_schema() -> dict[str, Any]:
    """The schema of all values."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = _of(values, "")
    config, definitions = _of_config()
    schema["properties"]["config"] = config
    schema["properties"]["global"] = {"type": "object"}  # Helm's own, where the chart is a part of another
    return {"$schema": DRAFT, **schema, "definitions": definitions}


def _of(default: Any, path: str) -> dict[str, Any]:
    if path in CHOICES:
        return {"enum": CHOICES[path]}
    if path in ITEMS:
        return {"type": "array", "items": ITEMS[path]}
    if path.endswith(EITHER):
        return {"type": ["integer", "string"]}
    if not isinstance(default, dict):
        return PLAIN[type(default)] | ({"minLength": 1} if path in REQUIRED else {})
    if not default or path in FREE_MAPS or path.endswith(".resources"):
        return {"type": "object"}
    inner = {name: _of(value, f"{path}.{name}".lstrip(".")) for name, value in default.items()}
    return {"type": "object", "additionalProperties": False, "properties": inner}


def _of_config() -> tuple[dict[str, Any], dict[str, Any]]:
    whole = Settings.model_json_schema(ref_template="#/definitions/{model}")
    definitions = whole.pop("$defs")
    for name, settings in SET_BY_THE_CHART.items():
        section = whole if name == "Settings" else definitions[name]
        for setting in settings:
            del section["properties"][setting]
    whole["required"] = ["kafka", "feeds"]
    for section in (whole, *definitions.values()):
        for described in (section, *section["properties"].values()):
            described.pop("title", None)
    return whole, definitions


def schema_text() -> str:
    """What the file holds."""
    return json.dumps(values_schema(), indent=2) + "\n"


if __name__ == "__main__":
    (CHART / "values.schema.json").write_text(schema_text())
