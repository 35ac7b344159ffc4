"""What of deploy/compose.yaml needs no Docker to be checked; its syntax is checked by `make deploy-check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from worker.config import load

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
PROJECT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
OURS = {name: service for name, service in PROJECT["services"].items() if service.get("configs")}


def test_what_is_read_only_gets_its_settings_from_a_file() -> None:
    assert OURS.keys() == {"migrate", "worker", "projector", "gateway"}
    for name, service in OURS.items():
        assert service["read_only"], name
        for config in service["configs"]:
            assert PROJECT["configs"][config["source"]].keys() == {"file"}, name


def test_the_program_takes_these_settings() -> None:
    settings = load(COMPOSE.parent / PROJECT["configs"]["settings"]["file"], {})

    topics = {topic for feed in settings.feed_list() for topic in feed.topics}
    assert {*topics, settings.kafka.dead_letter_topic} == {"cohorts", "cohort-sync.dead-letters"}


def test_what_drains_is_given_the_time_for_it() -> None:
    settings = load(COMPOSE.parent / PROJECT["configs"]["settings"]["file"], {})

    for name in ("worker", "projector"):
        assert float(PROJECT["services"][name]["stop_grace_period"].removesuffix("s")) >= settings.shutdown.grace_s + 15
