"""The configuration of `make demo` and `make up`: a feed of each kind, and the topics for them."""

from __future__ import annotations

from typing import Any

DEAD_LETTERS = "cohort-sync.dead-letters"
PARTITIONS = 4

FEEDS: list[dict[str, Any]] = [
    {
        "name": "amplitude-webhook",
        "topics": ["cohorts.amplitude-webhook"],
        "format": "amplitude-webhook",
        "environment": "production",
    },
    {
        "name": "amplitude",
        "topics": ["cohorts.amplitude"],
        "format": "amplitude",
        "environment": "production",
    },
    {
        "name": "segment",
        "topics": ["audiences.segment"],
        "format": "segment",
        "environment": "production",
        "context_key": "user_id_or_email",
    },
]

TOPICS = {topic: PARTITIONS for feed in FEEDS for topic in feed["topics"]} | {DEAD_LETTERS: PARTITIONS}


def sample_settings(bootstrap_servers: str, dsn: str, *, http_port: int) -> dict[str, Any]:
    """What stands in `cohort-sync.yaml`."""
    return {
        "kafka": {"bootstrap_servers": bootstrap_servers, "dead_letter_topic": DEAD_LETTERS},
        "postgres": {"dsn": dsn},
        "http": {"port": http_port},
        "environments": [{"key": "production", "project": "default", "client_side_id": "61a0c0ffee0123456789abcd"}],
        "feeds": FEEDS,
    }
