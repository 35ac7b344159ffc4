"""What of deploy/compose.yaml needs no Docker to be checked; its syntax is checked by `make deploy-check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from worker.config import load

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
PROJECT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SETTINGS = COMPOSE.parent / PROJECT["configs"]["settings"]["file"]
OURS = {name: service for name, service in PROJECT["services"].items() if "build" in service}


def test_what_is_read_only_gets_its_settings_from_a_file() -> None:
    assert OURS.keys() == {"migrate", "worker", "projector", "gateway"}
    for name, service in OURS.items():
        assert service["read_only"], name
        for config in service["configs"]:
            assert PROJECT["configs"][config["source"]].keys() == {"file"}, name


def test_it_runs_what_there_is_with_settings_that_load_and_topics_that_are_there() -> None:
    settings = load(SETTINGS, {})

    assert {service["command"][0] for service in OURS.values()} == {"migrate", "run", "project", "gateway"}
    for topic in (settings.kafka.dead_letter_topic, *settings.feeds[0].topics):
        assert topic in PROJECT["services"]["topics"]["command"][0]


def test_what_drains_is_given_the_time_for_it() -> None:
    settings = load(SETTINGS, {})

    for name in ("worker", "projector"):
        assert float(PROJECT["services"][name]["stop_grace_period"].removesuffix("s")) >= settings.shutdown.grace_s + 15
