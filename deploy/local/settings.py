"""The configuration of the demo and of `make up`: a feed for each sample, and the topics that they need."""

from __future__ import annotations

from typing import Any

PARTITIONS = 4
TOPICS = {
    "cohorts.amplitude-webhook": PARTITIONS,
    "cohorts.amplitude": PARTITIONS,
    "audiences.segment": PARTITIONS,
    "cohorts.any": PARTITIONS,
    "cohorts.rudderstack-event": PARTITIONS,
    "cohorts.mparticle": PARTITIONS,
    "cohort-sync.dead-letters": 1,
}


def sample_settings(
    bootstrap_servers: str, dsn: str, redis_url: str, *, http_port: int, gateway_port: int
) -> dict[str, Any]:
    """What a platform team would write, with these addresses."""
    return {
        "kafka": {"bootstrap_servers": bootstrap_servers},
        "postgres": {"dsn": dsn},
        "http": {"port": http_port},
        "gateway": {"port": gateway_port},
        "environments": [{"key": "production", "project": "default", "client_side_id": "61a0c0ffee0123456789abcd"}],
        "feeds": [
            _feed("amplitude-webhook", "cohorts.amplitude-webhook"),
            _feed("amplitude", "cohorts.amplitude"),
            _feed("segment", "audiences.segment", context_key="user_id_or_email"),
            _feed("rudderstack-event", "cohorts.rudderstack-event", cohort_id="newsletter", cohort_name="Newsletter"),
            _feed("mparticle", "cohorts.mparticle", context_key="email"),
            _feed("header", "cohorts.any") | {"name": "any"},
        ],
        "projections": [{"name": "sdk", "type": "redis", "environment": "production", "url": redis_url}],
    }


def _feed(form: str, topic: str, **others: str) -> dict[str, Any]:
    return {"name": form, "topics": [topic], "format": form, "environment": "production", **others}
