"""The chart, as the real Helm renders it: every combination is valid, restricted, and every setting has an effect."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.kustomize_base import BASE, rendered
from tests.deploy.chart import EVERYTHING, VALUES, Manifest, conform, leaves, manifests, pods, render
from tests.deploy.programs import CHART, ToolFailedError, run_tool
from worker.config import load
from worker.health import PROGRESS_WITHIN_S
from worker.settings import Settings

SWITCHES: dict[str, list[Any]] = {
    "projector.enabled": [False, True],
    "gateway.enabled": [False, True],
    "gateway.autoscaling.enabled": [False, True],
    "migration.enabled": [False, True],
    "networkPolicy.enabled": [False, True],
    "serviceAccount.create": [False, True],
    "monitoring": [
        {name: {"enabled": on} for name in ("podMonitor", "serviceMonitor", "dashboards")}
        | {"prometheusRule": {"enabled": on, "runbook": "https://wiki.example.com/runbook"}}
        for on in (False, True)
    ],
    "worker": [{}, {"autoscaling": {"enabled": True}}, {"keda": {"enabled": True}}],
}
COMBINATIONS = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]

PROJECTION = {"name": "sdk", "type": "redis", "environment": "production"}

NEEDS: dict[str, dict[str, Any]] = {
    "worker.autoscaling": {"worker.keda.enabled": False, "worker.autoscaling.enabled": True},
    "worker.replicas": {"worker.keda.enabled": False},
    "gateway.replicas": {"gateway.autoscaling.enabled": False},
}
"""What must be set before a setting can have an effect, by the beginning of its path."""
OTHER_VALUES: dict[str, Any] = {
    "worker.keda.authenticationKind": "ClusterTriggerAuthentication",
    "image.digest": "sha256:" + "0" * 64,
    "manifests": {"other.json": "{}"},
    "monitoring.podMonitor.interval": "20s",
    "monitoring.serviceMonitor.interval": "20s",
    **{f"{part}.topologySpread.whenUnsatisfiable": "DoNotSchedule" for part in ("worker", "projector", "gateway")},
    "image.pullPolicy": "Always",
    "gateway.service.type": "NodePort",
    "credentials.postgresTls.mode": "verify-ca",
    "credentials.webhooks.feeds": [],
    "config.feeds": [{"name": "heap", "topics": ["other"], "format": "heap-inbound"}],
    "extraEnv": [{"name": "OTHER", "value": "1"}],
    "migration.grants": [{"part": "projector", "role": "cohort_projector"}],
    "worker.autoscaling.enabled": False,
}


@pytest.mark.timeout(300)
def test_every_combination_of_the_main_switches_is_valid() -> None:
    assert len(COMBINATIONS) == 384
    texts = [render(changes=combination | {"config.projections": [PROJECTION]}) for combination in COMBINATIONS]

    assert "Invalid: 0, Errors: 0, Skipped: 0" in conform("\n---\n".join(texts))
    assert "Invalid: 0, Errors: 0, Skipped: 0" in conform(render(EVERYTHING))


def test_a_mistyped_field_would_have_been_seen() -> None:
    with pytest.raises(ToolFailedError, match="readinesProbe"):
        conform(render().replace("readinessProbe", "readinesProbe"))


@pytest.mark.parametrize("values", [[], [f"-f{EVERYTHING}"]], ids=["defaults", "everything"])
def test_helm_finds_nothing_to_complain_of(values: list[str]) -> None:
    assert "0 chart(s) failed" in run_tool("helm", "lint", "--strict", CHART, *values)


@pytest.mark.timeout(300)
def test_every_setting_has_an_effect() -> None:
    everything = yaml.safe_load(EVERYTHING.read_text())
    set_there = dict(leaves(everything))
    paths = {path: set_there.get(path, default) for path, default in leaves(VALUES)}

    without: list[str] = []
    for path, value in paths.items():
        needed = next((needs for start, needs in NEEDS.items() if path.startswith(start)), {})
        before = render(EVERYTHING, changes=needed)
        if render(EVERYTHING, changes=needed | {path: another(path, value, everything)}) == before:
            without.append(path)

    assert without == []


def another(path: str, value: Any, everything: Mapping[str, Any]) -> Any:
    """A value that it has neither by default nor in `everything.yaml`."""
    if path in OTHER_VALUES:
        return OTHER_VALUES[path]
    set_there: Any = everything
    for step in path.split("."):
        set_there = set_there.get(step) if isinstance(set_there, dict) else None
    match set_there if set_there is not None else value:
        case bool(is_on):
            return not is_on
        case int(number):
            return number + 1
        case str(text):
            return f"{text}x"
        case list(items):
            return items * 2 if items else [{"name": "other"}]
        case _:
            return {"other": "x"}


@pytest.mark.parametrize("values", [[], [EVERYTHING]], ids=["defaults", "everything"])
def test_every_pod_keeps_to_the_restricted_profile_and_says_what_it_needs(values: list[Path]) -> None:
    for name, pod in pods(manifests(render(*values))):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_deployments_are_probed_by_progress_and_given_time_to_drain() -> None:
    deployments = [each for each in manifests(render(EVERYTHING)) if each["kind"] == "Deployment"]

    assert {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in deployments} == {
        "worker",
        "projector",
        "gateway",
    }
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert pod["terminationGracePeriodSeconds"] > 30  # shutdown.grace_s of everything.yaml
        # The watchdog comes first, as it says where the process hung.
        assert 30 + container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"] > 60


@pytest.mark.parametrize("grace_s", [5, 60, 90.5, 600])
def test_the_pod_outlives_the_drain_whatever_that_may_take(grace_s: float) -> None:
    found = manifests(render(changes={"config.shutdown.grace_s": grace_s}))

    (pod,) = (pod for name, pod in pods(found) if name.endswith("-worker"))
    assert pod["terminationGracePeriodSeconds"] >= grace_s + 15


def test_a_rollout_of_workers_never_has_more_members_than_there_should_be() -> None:
    (worker,) = (
        each
        for each in manifests(render())
        if each["metadata"]["name"].endswith("-worker") and each["kind"] == "Deployment"
    )

    assert worker["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def settings_of(name: str, found: list[Manifest], folder: Path) -> Settings:
    """As the program in this pod finds them, with the files that it is given and no others."""
    pod = dict(pods(found))[name]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for path in files_of(pod):
        file = folder / "credentials" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("postgresql://u@postgres/d" if path == "postgres-dsn" else "rediss://valkey:6379/0")
    (data,) = (
        each["data"]
        for each in found
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == volumes["config"]["configMap"]["name"]
    )
    for item in volumes["config"]["configMap"]["items"]:
        file = folder / "config" / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data[item["key"]].replace("/etc/cohort-sync", str(folder)))
    return load(folder / "config" / "cohort-sync.yaml", {})


def files_of(pod: Manifest) -> set[str]:
    """What it is given of Secrets, as files."""
    (volume,) = (each for each in pod["volumes"] if each["name"] == "credentials")
    return {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}


def test_each_part_is_given_the_secrets_that_it_has_a_use_for_and_no_others() -> None:
    found = dict(pods(manifests(render(EVERYTHING))))
    postgres = {"postgres-dsn", "postgres-ca.crt", "postgres-tls.crt", "postgres-tls.key"}
    kafka = {"kafka-password", "kafka-ca.crt", "kafka-tls.crt", "kafka-tls.key"}
    redis = {"projection-sdk", "redis-ca.crt", "redis-tls.crt", "redis-tls.key"}

    assert {name.removeprefix("demo-cohort-sync-"): files_of(pod) for name, pod in found.items()} == {
        "worker": postgres | kafka | redis,
        "config-check": postgres | kafka | redis,
        "projector": postgres | redis,
        "gateway": postgres | kafka | {"webhook-heap"},
        "migrate": postgres,
        "migrate-post": postgres,
    }
    with_aws = {name for name, pod in found.items() if "envFrom" in pod["containers"][0]}
    assert with_aws == {f"demo-cohort-sync-{part}" for part in ("worker", "config-check", "projector")}
    with_other_cell = {name for name, pod in found.items() if "other-cell" in {each["name"] for each in pod["volumes"]}}
    assert with_other_cell == {"demo-cohort-sync-worker"}


def test_the_program_takes_the_configuration_and_finds_every_credential(tmp_path: Path) -> None:
    found = manifests(render(EVERYTHING))
    parts = {
        name.removeprefix("demo-cohort-sync-"): settings_of(name, found, tmp_path / name) for name, _ in pods(found)
    }

    for settings in parts.values():
        assert (settings.http.host, settings.http.port, settings.gateway.port) == ("0.0.0.0", 9400, 8400)
        assert settings.postgres.sslkey is not None
        assert [path.name for path in settings.manifest_paths()] == ["acme.json"]
    assert {
        name for name, settings in parts.items() if settings.kafka.sasl_password_file and settings.kafka.ssl_keyfile
    } == {
        "worker",
        "config-check",
        "gateway",
    }
    for name in ("worker", "config-check", "projector"):
        assert parts[name].projections[0].redis_url() == "rediss://valkey:6379/0"
        assert parts[name].projections[0].ssl_keyfile is not None
        assert parts[name].projections[1].ssl_keyfile is None  # redis://, where TLS settings are an error
    assert {name: settings.webhook_secrets().keys() for name, settings in parts.items()} == {
        **dict.fromkeys(parts, {}.keys()),
        "gateway": {"heap"},
    }


def test_tls_settings_name_only_the_files_that_there_are(tmp_path: Path) -> None:
    changes = {
        **{f"credentials.kafkaTls.{key}": "" for key in ("caKey", "keyKey")},
        **{f"credentials.redisTls.{key}": "" for key in ("certKey", "keyKey")},
        **{f"credentials.postgresTls.{key}": "" for key in ("caKey", "keyKey")},
        "credentials.postgresTls.mode": "require",
    }
    found = manifests(render(EVERYTHING, changes=changes))

    settings = settings_of("demo-cohort-sync-worker", found, tmp_path)

    assert settings.kafka.ssl_cafile is settings.kafka.ssl_keyfile is settings.projections[0].ssl_certfile is None
    assert files_of(dict(pods(found))["demo-cohort-sync-worker"]) >= {
        "kafka-tls.crt",
        "redis-ca.crt",
        "postgres-tls.crt",
    }


def test_a_part_is_restarted_by_a_change_of_its_own_settings_only() -> None:
    def templates(**changes: Any) -> dict[str, Any]:
        found = manifests(render(EVERYTHING, changes={"credentials.webhooks.feeds": changes["feeds"]}))
        return {each["metadata"]["name"]: each["spec"]["template"] for each in found if each["kind"] == "Deployment"}

    before, after = templates(feeds=["heap"]), templates(feeds=[])

    assert {name for name in before if before[name] != after[name]} == {"demo-cohort-sync-gateway"}


def test_a_new_version_of_the_chart_alone_restarts_nobody(tmp_path: Path) -> None:
    def rendered_by(chart: Path) -> list[Manifest]:
        return manifests(run_tool("helm", "template", "demo", chart, f"-f{EVERYTHING}"))

    newer = tmp_path / "cohort-sync"
    shutil.copytree(CHART, newer)
    described = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(described.replace("\nversion: ", "\nversion: 9.9.9-rc.1+build."))

    before, after = rendered_by(CHART), rendered_by(newer)

    assert [each["spec"]["template"] for each in before if each["kind"] == "Deployment"] == [
        each["spec"]["template"] for each in after if each["kind"] == "Deployment"
    ]
    labels = {each["metadata"]["labels"]["helm.sh/chart"] for each in after}
    assert len(labels) == 1
    assert re.fullmatch(r"cohort-sync-9\.9\.9-rc\.1_build\.[0-9.]+", labels.pop())


@pytest.mark.parametrize("word", ["no", "123", "1e3", "null"])
def test_names_that_yaml_would_take_for_something_else_stay_names(word: str) -> None:
    changes = {
        "commonLabels": {"stage": word},
        "worker.podLabels": {"tier": word},
        "worker.podAnnotations": {"note": word},
        "worker.nodeSelector": {"disk": word},
        "worker.priorityClassName": word,
        "serviceAccount.name": word,
        "image.repository": word,
        "image.tag": word,
        "gateway.ingress.hosts": [word, f"*.{word}.example.com"],
        "gateway.ingress.className": word,
        "config.projections": [{"name": word, "type": "redis", "environment": "production"}],
        "config.feeds": [{"name": word, "topics": [word], "format": "heap-inbound", "environment": "production"}],
        "credentials": {
            "postgres": {"existingSecret": word, "key": word},
            "kafka": {"existingSecret": word, "passwordKey": word},
            "kafkaTls": {"existingSecret": word, "caKey": word, "certKey": word, "keyKey": word},
            "projections": {"existingSecret": word},
            "webhooks": {"existingSecret": word, "feeds": [word]},
            "environment": {"existingSecret": word},
            "otherCell": {"existingSecret": word},
        },
        "worker.keda.authenticationRef": word,
        "monitoring.podMonitor.labels": {"release": word},
        "fullnameOverride": "x",
    }

    text = render(EVERYTHING, changes=changes, release=f"r{word}", namespace=word)

    assert "Invalid: 0, Errors: 0, Skipped: 0" in conform(text)
    assert {each["metadata"]["namespace"] for each in manifests(text)} == {word}
    assert "Invalid: 0, Errors: 0, Skipped: 0" in conform(render(release="123", namespace=word))


def test_large_numbers_stay_whole_numbers() -> None:
    changes = {
        "worker.keda.lagThreshold": 5_000_000,
        "worker.keda.freshnessThresholdSeconds": 3_000_000,
        "worker.keda.maxReplicas": 1_000_000,
        "migration.activeDeadlineSeconds": 2_000_000,
        "config.batch.max_bytes": 33_554_432,
    }

    text = render(EVERYTHING, changes=changes)

    assert "e+0" not in text
    assert "5000000" in text
    assert "33554432" in text


@pytest.mark.parametrize(
    "release", ["a" * 53, f"{'a' * 46}-{'b' * 6}", "a.b" * 17], ids=["long", "cut-at-dash", "dots"]
)
def test_names_fit_into_what_kubernetes_takes_whatever_the_release_is_called(release: str) -> None:
    for each in manifests(render(EVERYTHING, release=release)):
        name = each["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name
        assert len(name) <= {"ConfigMap": 253, "CronJob": 52}.get(each["kind"], 63)
        assert "--" not in name


@pytest.mark.parametrize(("stall_s", "failures"), [(30, 3), (60, 6), (61, 7), (3600, 360)])
def test_liveness_waits_until_the_watchdog_has_said_where_a_process_hangs(stall_s: int, failures: int) -> None:
    for each in manifests(render(EVERYTHING, changes={"config.watchdog": {"stall_s": stall_s}})):
        if each["kind"] == "Deployment":
            probe = each["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]
            assert probe["failureThreshold"] == failures
            assert PROGRESS_WITHIN_S + probe["periodSeconds"] * failures >= stall_s + 30


def test_a_gateway_that_need_not_wait_for_balancers_has_no_hook() -> None:
    (gateway,) = (
        pod
        for name, pod in pods(manifests(render(EVERYTHING, changes={"gateway.preStopSeconds": 0})))
        if "gateway" in name
    )

    assert "lifecycle" not in gateway["containers"][0]


def test_the_gateway_is_scraped_once() -> None:
    def of_gateway(**enabled: bool) -> list[str]:
        changes = {f"monitoring.{name}.enabled": value for name, value in enabled.items()}
        return [
            each["kind"]
            for each in manifests(render(EVERYTHING, changes=changes))
            if each["kind"].endswith("Monitor") and each["metadata"]["name"].endswith("-gateway")
        ]

    assert of_gateway(podMonitor=True, serviceMonitor=True) == ["ServiceMonitor"]
    assert of_gateway(podMonitor=True, serviceMonitor=False) == ["PodMonitor"]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("worker.replica", 3, "replica"),
        ("worker.podDisruptionBudgets", {}, "podDisruptionBudgets"),
        ("worker.replicas", "three", "replicas"),
        ("migration.grants", [{"part": "wroker", "role": "cohort_worker"}], "wroker|migration/grants"),
        ("config.kafka.bootstrap_server", "kafka:9092", "bootstrap_server"),
        ("config.batch", {"max_wait_s": 60}, "max_wait_s"),
        ("config.http", {"port": 1}, "http"),
        ("config.postgres", {"dsn": "postgresql://u:p@h/d"}, "dsn"),
        ("gateway", {"enabled": True, "ingress": {"enabled": True}}, "which names should lead to the gateway"),
        ("gateway", {"enabled": True, "httpRoute": {"enabled": True}}, "through which Gateway"),
        ("config.unknown_environment", "skip", "give each its own config.kafka.group_id"),
        ("monitoring.prometheusRule.enabled", True, "set it to where you keep deploy/runbook.md"),
        ("worker", {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}, "enable one of them"),
        ("worker.autoscaling", {"enabled": True, "minReplicas": 9}, "minReplicas is more than maxReplicas"),
        ("worker.keda", {"enabled": True, "minReplicas": 9}, "minReplicas is more than maxReplicas"),
        ("worker.autoscaling", {"minReplicas": 0}, "minReplicas"),
        ("worker.autoscaling", {"scaleDownStabilizationSeconds": 3601}, "scaleDownStabilizationSeconds"),
        ("worker.keda", {"cooldownPeriod": 3601}, "cooldownPeriod"),
        ("worker.podDisruptionBudget", {"maxUnavailable": "some"}, "maxUnavailable"),
        ("gateway.service", {"port": 70000}, "port"),
        ("networkPolicy.kafka.ports", ["all"], "ports"),
        ("image.digest", "latest", "digest"),
        ("fullnameOverride", "Cohorts", "fullnameOverride"),
        ("commonLabels", {"stage": 1}, "commonLabels/stage"),
        ("commonLabels", {"helm.sh/chart": "x"}, "commonLabels"),
        ("worker.podLabels", {"app.kubernetes.io/name": "x"}, "podLabels"),
        ("worker.podAnnotations", {"scrape": True}, "podAnnotations/scrape"),
        ("manifests", {"acme": "{}"}, "manifests"),
        ("monitoring.podMonitor.interval", "15", "interval"),
        ("projector.enabled", True, "there is nothing to project"),
        ("credentials.kafkaTls", {"existingSecret": "x", "keyKey": "tls.key"}, "set certKey too"),
        ("credentials.redisTls", {"existingSecret": "x", "caKey": ""}, "set caKey or certKey"),
        ("credentials.postgresTls", {"existingSecret": "x", "caKey": "", "certKey": "x"}, "caKey: is empty"),
        ("credentials.webhooks", {"existingSecret": "x", "feeds": ["heap"]}, "`heap` is none of config.feeds"),
    ],
)
def test_what_is_mistyped_or_contradicts_itself_is_refused_before_anything_is_installed(
    path: str, value: Any, told: str
) -> None:
    with pytest.raises(ToolFailedError, match=told):
        render(changes={path: value})


def rules(found: list[Manifest], name: str) -> dict[str, Any]:
    """Of this network policy: from whom and where to, by port."""
    (spec,) = (each["spec"] for each in found if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == name)
    # A rule without ports would be one for all of them, and a rule without peers one for everybody.
    assert all(rule["ports"] for rule in (*spec.get("ingress", []), *spec.get("egress", [])))
    return {
        "in": {port["port"]: rule.get("from", "all") for rule in spec.get("ingress", []) for port in rule["ports"]},
        "out": {port["port"]: rule.get("to", "all") for rule in spec.get("egress", []) for port in rule["ports"]},
        "pods": spec["podSelector"]["matchLabels"],
        "types": spec["policyTypes"],
    }


def test_what_a_network_policy_does_not_name_stays_shut() -> None:
    nothing = {"networkPolicy": {"metricsFrom": [], **{part: {"ports": []} for part in ("postgres", "redis")}}}

    found = rules(manifests(render(changes=nothing)), "demo-cohort-sync")

    assert found["in"] == {}
    assert found["out"].keys() == {53, 9092}
    assert found["types"] == ["Ingress", "Egress"]


def test_pods_may_go_where_the_configuration_sends_them() -> None:
    def ports(config: Mapping[str, Any]) -> set[int]:
        found = manifests(render(changes={f"config.{path}": value for path, value in config.items()}))
        return set(rules(found, "demo-cohort-sync")["out"]) - {53, 5432, 6379}

    table = {"name": "t", "type": "dynamodb", "environment": "production", "table": "segments"}
    assert ports({"kafka.bootstrap_servers": "a:9093, b:9094,[::1]:9095"}) == {9093, 9094, 9095}
    assert ports({"kafka.bootstrap_servers": "a"}) == {9092}
    assert ports({"projections": [table]}) == {9092, 443}
    assert ports({"projections": [table | {"endpoint_url": "http://dynamodb:8000"}]}) == {9092, 443, 8000}
    assert ports({"projections": [table | {"endpoint_url": "http://dynamodb"}]}) == {9092, 443, 80}


def test_the_migration_may_reach_postgres_before_the_policy_of_the_release_is_there() -> None:
    changes = {"networkPolicy.postgres": {"ports": [6432], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}
    found = manifests(render(changes=changes))
    hooks = {each["kind"]: each for each in found if each["metadata"]["name"] == "demo-cohort-sync-migrate"}
    weights = {kind: int(each["metadata"]["annotations"].get("helm.sh/hook-weight", 0)) for kind, each in hooks.items()}

    policy = rules(found, "demo-cohort-sync-migrate")

    assert weights["NetworkPolicy"] < weights["ConfigMap"] < weights["Job"]
    assert policy["pods"].items() <= hooks["Job"]["spec"]["template"]["metadata"]["labels"].items()
    assert policy["types"] == ["Egress"]
    assert policy["out"] == {53: "all", 6432: [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}


def triggers(**changes: Any) -> list[Manifest]:
    """Of KEDA for the workers, with the values of everything.yaml and these settings."""
    settings = {f"config.{name}": value for name, value in changes.items()}
    (scaled,) = (each for each in manifests(render(EVERYTHING, changes=settings)) if each["kind"] == "ScaledObject")
    found: list[Manifest] = scaled["spec"]["triggers"]
    return found


def test_scaling_by_freshness_compares_the_age_itself() -> None:
    (freshness,) = (trigger for trigger in triggers() if trigger["type"] == "prometheus")

    assert freshness["metricType"] == "Value"


def test_scaling_by_lag_asks_for_each_topic_or_for_all_of_the_group_where_a_pattern_decides() -> None:
    def topics(feeds: list[dict[str, Any]]) -> list[str | None]:
        common = {"format": "header", "environment": "production"}
        found = triggers(
            feeds=[
                {"name": "heap", "topics": ["heap"], "format": "heap-inbound"},
                *({**common, **feed} for feed in feeds),
            ]
        )
        return [each["metadata"].get("topic") for each in found if each["type"] == "kafka"]

    assert topics([{"name": "a", "topics": ["a", "b"]}]) == ["heap", "a", "b"]
    assert topics([{"name": "a", "topics": ["a"]}, {"name": "b", "topic_pattern": "b.*"}]) == [None]


def test_keda_is_not_sent_to_a_kafka_that_would_turn_it_away() -> None:
    with pytest.raises(ToolFailedError, match="name the TriggerAuthentication"):
        render(EVERYTHING, changes={"worker.keda.authenticationRef": ""})


def test_the_migration_gives_up_before_helm_does() -> None:
    assert VALUES["migration"]["activeDeadlineSeconds"] < 300


def test_nothing_of_a_hook_stays_behind_once_it_succeeded() -> None:
    hooks = [
        each for each in manifests(render(EVERYTHING)) if "helm.sh/hook" in each["metadata"].get("annotations", {})
    ]

    assert len(hooks) == 4
    for each in hooks:
        assert "hook-succeeded" in each["metadata"]["annotations"]["helm.sh/hook-delete-policy"], each["kind"]


def test_the_pods_of_hooks_run_where_they_are_told_to() -> None:
    found = manifests(render(EVERYTHING))
    metadata = [
        *(each["spec"]["template"]["metadata"] for each in found if each["kind"] == "Job"),
        *(each["metadata"] for each in found if each["kind"] == "Pod"),
    ]
    specifications = dict(pods(found))

    assert [each["annotations"]["note"] for each in metadata] == ["migration"] * 2
    assert [each["labels"]["tier"] for each in metadata] == ["data"] * 2
    for name in ("demo-cohort-sync-migrate", "demo-cohort-sync-config-check"):
        assert specifications[name]["nodeSelector"] == {"disk": "ssd"}
        assert specifications[name]["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
        assert specifications[name]["affinity"].keys() == {"nodeAffinity"}
        assert specifications[name]["priorityClassName"] == "high"


def test_a_name_that_can_not_be_the_key_of_a_secret_is_refused() -> None:
    changes = {"config.projections": [PROJECTION | {"name": "a b"}], "credentials.projections.existingSecret": "redis"}

    with pytest.raises(ToolFailedError, match="can't be the key of a Secret"):
        render(changes=changes)


def test_a_release_whose_service_could_not_be_named_after_it_says_so() -> None:
    with pytest.raises(ToolFailedError, match="names of Services begin with a letter"):
        render(changes={"gateway.enabled": True}, release="123")


def test_each_part_reaches_postgres_by_its_own_role_and_the_migration_grants_them_what_they_need() -> None:
    rendered_pods = dict(pods(manifests(render(EVERYTHING))))

    def secret_with_dsn(pod: Mapping[str, Any]) -> str:
        (volume,) = (each for each in pod["volumes"] if each["name"] == "credentials")
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        (secret,) = (each["name"] for each in sources if each["items"][0]["path"] == "postgres-dsn")
        return str(secret)

    assert {name.removeprefix("demo-cohort-sync-"): secret_with_dsn(pod) for name, pod in rendered_pods.items()} == {
        "worker": "cohort-sync-postgres",
        "projector": "projector",
        "gateway": "gateway",
        "migrate": "owner",
        "migrate-post": "owner",
        "config-check": "cohort-sync-postgres",
    }
    grants = rendered_pods["demo-cohort-sync-migrate"]["containers"][0]["args"]
    assert " ".join(grants) == (
        "migrate --pre --grant worker cohort_worker --grant operator cohort_worker --grant gateway cohort_gateway"
    )


def test_what_older_code_can_not_bear_is_migrated_by_hand_and_by_nothing_else() -> None:
    (waiting,) = (each for each in manifests(render(EVERYTHING)) if each["kind"] == "CronJob")
    (container,) = waiting["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]

    assert waiting["spec"]["suspend"] is True
    assert container["args"][:2] == ["migrate", "--grant"]
    assert "helm.sh/hook" not in waiting["metadata"].get("annotations", {})


def test_a_second_cell_shares_kafka_with_the_first_and_nothing_else(tmp_path: Path) -> None:
    def settings(*files: Path) -> Settings:
        (data,) = (
            each["data"]
            for each in manifests(render(*files))
            if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "demo-cohort-sync"
        )
        (tmp_path / "postgres-dsn").write_text("postgresql://u@postgres/d")
        file = tmp_path / "cohort-sync.yaml"
        file.write_text(data["cohort-sync.yaml"].replace("/etc/cohort-sync/credentials", str(tmp_path)))
        return load(file, {})

    first, second = settings(), settings(CHART / "values-cell.yaml")

    assert second.kafka.bootstrap_servers == first.kafka.bootstrap_servers
    assert second.kafka.group_id != first.kafka.group_id
    assert second.kafka.dead_letter_topic != first.kafka.dead_letter_topic
    assert second.feed_list()[0].topics == first.feed_list()[0].topics
    assert second.unknown_environment == "skip"
    assert {each.key for each in second.environments} == {"staging"}


def test_the_chart_makes_no_secret() -> None:
    assert not any(each["kind"] == "Secret" for each in manifests(render(EVERYTHING)))


def test_the_kustomize_base_migrates_first_with_argo_cd_and_anew_with_flux() -> None:
    migrates = {
        each["kind"]: each["metadata"]["annotations"]
        for each in manifests(BASE.read_text())
        if each["metadata"]["name"] == "cohort-sync-migrate"
    }

    waves = {kind: int(told["argocd.argoproj.io/sync-wave"]) for kind, told in migrates.items()}
    assert waves == {"NetworkPolicy": -2, "ConfigMap": -1, "Job": 0}
    for told in migrates.values():
        assert told["argocd.argoproj.io/hook"] == "PreSync"
        assert told["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert migrates["Job"]["kustomize.toolkit.fluxcd.io/force"] == "enabled"


def test_the_kustomize_base_is_what_comes_out_of_the_chart() -> None:
    assert BASE.read_text() == rendered()
    assert "Invalid: 0, Errors: 0, Skipped: 0" in conform(run_tool("kubectl", "kustomize", BASE.parent))
