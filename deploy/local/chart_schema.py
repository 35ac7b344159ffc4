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
    "worker.keda.authenticationKind": ["TriggerAuthentication", "ClusterTriggerAuthentication"],
    **{
        f"{component}.topologySpread.whenUnsatisfiable": ["ScheduleAnyway", "DoNotSchedule"]
        for component in ("worker", "projector", "gateway")
    },
}
PORT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 65_535}
NOT_EMPTY: dict[str, Any] = {"type": "string", "minLength": 1}
ITEMS: dict[str, dict[str, Any]] = {
    "credentials.webhooks.feeds": NOT_EMPTY,
    "gateway.ingress.hosts": NOT_EMPTY,
    "gateway.httpRoute.hostnames": NOT_EMPTY,
    **dict.fromkeys(("networkPolicy.kafka.ports", "networkPolicy.postgres.ports", "networkPolicy.redis.ports"), PORT),
    "migration.grants": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"part": {"enum": [*get_args(Part)]}, "role": NOT_EMPTY},
        "required": ["part", "role"],
    },
}
"""What is in lists that are ours and not Kubernetes'."""
OF_TEXTS = ("labels", "annotations", "commonLabels", "podLabels", "podAnnotations", "nodeSelector", "manifests")
"""Their names are the user's, and Kubernetes takes a number or a `true` among the values for a mistake."""
OURS = ("name", "instance", "component", "version", "managed-by")
NOT_OURS = {"not": {"enum": [*(f"app.kubernetes.io/{name}" for name in OURS), "helm.sh/chart"]}}
NAMES: dict[str, dict[str, Any]] = {
    # With another value in them the pods would be nobody's.
    "commonLabels": NOT_OURS,
    "podLabels": NOT_OURS,
    "manifests": {"pattern": r"^[-._a-zA-Z0-9]+\.json$"},
}
"""What names in such an object may be, by the end of its path."""
PATTERNS = {
    "nameOverride": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
    "fullnameOverride": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
    "image.digest": "^(sha256:[0-9a-f]{64})?$",
    "monitoring.podMonitor.interval": "^([0-9]+(ms|[smhdwy]))+$",
    "monitoring.serviceMonitor.interval": "^([0-9]+(ms|[smhdwy]))+$",
}
BOUNDS: dict[str, dict[str, Any]] = {
    "autoscaling.minReplicas": {"minimum": 1},
    "maxReplicas": {"minimum": 1},
    "targetCPUUtilizationPercentage": {"minimum": 1},
    "scaleDownStabilizationSeconds": {"maximum": 3_600},
    "keda.cooldownPeriod": {"maximum": 3_600},
    "keda.pollingInterval": {"minimum": 1},
    "keda.lagThreshold": {"minimum": 1},
    "keda.freshnessThresholdSeconds": {"minimum": 1},
    "migration.activeDeadlineSeconds": {"minimum": 1},
    "gateway.service.port": PORT,
}
"""By the end of the path: what an API server, or KEDA, would refuse later."""
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
        return {"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+%$"}
    if isinstance(default, dict):
        return _of_object(default, path)
    return PLAIN[type(default)] | _limits(path)


def _of_object(default: dict[str, Any], path: str) -> dict[str, Any]:
    if path.endswith(OF_TEXTS):
        names = [rule for end, rule in NAMES.items() if path.endswith(end)]
        texts = {"type": "object", "additionalProperties": {"type": "string"}}
        return texts | ({"propertyNames": names[0]} if names else {})
    if not default or path.endswith(".resources"):
        return {"type": "object"}
    inner = {name: _of(value, f"{path}.{name}".lstrip(".")) for name, value in default.items()}
    return {"type": "object", "additionalProperties": False, "properties": inner}


def _limits(path: str) -> dict[str, Any]:
    if path in REQUIRED:
        return {"minLength": 1}
    if path in PATTERNS:
        return {"pattern": PATTERNS[path]}
    return next((bounds for end, bounds in BOUNDS.items() if path.endswith(end)), {})


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
