"""The gateway as those who send to it see it, with a worker behind it on demand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from tests.worker_process import Bench, GatewayProcess, eventually

NOT_FOUND = 404
CLIENT_SIDE_ID = "61a0c0ffee0123456789abcd"


class GatewayUnderTest:
    """A gateway with a topic of its own for records of any format."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.client = httpx.AsyncClient()
        self.topic = bench.webhook_topic.replace("webhook", "any")
        bench.settings["feeds"].append({"name": "any", "topics": [self.topic], "format": "header"})
        bench.settings["environments"] = [{"key": "production", "project": "web", "client_side_id": CLIENT_SIDE_ID}]

    async def __aenter__(self) -> Self:
        await self.bench.create_topics({self.topic: 4})
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.aclose()

    async def start(self) -> GatewayProcess:
        """Takes requests when this returns."""
        self.process = self.bench.start_gateway()
        self.url = await self.process.ready()
        self.client = httpx.AsyncClient(base_url=self.url, timeout=30)
        return self.process

    async def token(self, *options: str, policy: Sequence[dict[str, Any]] | None = None) -> str:
        """A new token that the gateway knows, of a writer where no policy is given."""
        if policy is None:
            options = ("--role", "writer", *options)
        else:
            path = Path(self.bench.folder) / "policy.json"
            path.write_text(json.dumps(policy))
            options = ("--policy", str(path), *options)
        [made] = await self.bench.rows("tokens", "create", "--name", "a tool", *options)
        token = str(made["token"])

        async def is_known() -> bool:
            return (await self.sync(b"", token, "unheard-of")).status_code == NOT_FOUND

        await eventually(is_known, 5)
        return token

    async def post(
        self, path: str, body: object, token: str | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """What is answered to this body: JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        said = {"content-type": "application/json", **(headers or {})}
        if token is not None:
            said["authorization"] = token
        return await self.client.post(path, content=content, headers=said)

    async def sync(self, body: object, token: str | None, integration: str = "amplitude") -> httpx.Response:
        """What LaunchDarkly's endpoint would answer."""
        return await self.post(f"/api/v2/segment-targets/{integration}", body, token)

    async def records(self, topic: str | None = None, partitions: int = 4) -> list[Any]:
        """What was published to the gateway's own topic, or to another."""
        read = [await self.bench.read_topic(topic or self.topic, number) for number in range(partitions)]
        return [record for records in read for record in records]


def a_batch(*members: str, cohort_id: str = "c1", value: object = True, **more: object) -> dict[str, object]:
    """As Amplitude sends it to LaunchDarkly."""
    listed = [
        {"userId": each, "cohortId": cohort_id, "cohortName": f"Cohort {cohort_id}", "value": value} for each in members
    ]
    return {"environmentId": CLIENT_SIDE_ID, "batch": listed, **more}
