"""The gateway is as its own OpenAPI says, whatever is sent to it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import CLIENT_SIDE_ID, GatewayUnderTest, a_batch

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
KNOWN = {
    "integration": ["amplitude", "heap-inbound", "mixpanel", "unheard-of"],
    "feed": ["webhook", "amplitude", "engage", "unheard-of"],
    "project": ["web"],
    "environment": ["production"],
    "key": ["amplitude-c1"],
    "client_side_id": [CLIENT_SIDE_ID],
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("is_write_key", [False, True])
@pytest.mark.parametrize("knows_places", [False, True])
async def test_every_answer_is_one_that_the_document_names(
    gateway: GatewayUnderTest, is_write_key: bool, knows_places: bool
) -> None:
    gateway.bench.settings["gateway"] = {"feed": "webhook"}
    process = await gateway.start()
    writer = await gateway.token()
    token = await gateway.token("--feed", "engage") if is_write_key else writer
    await gateway.sync(a_batch("u1"), writer)
    await gateway.bench.catch_up()
    document = (await gateway.client.get("/openapi.json")).json()
    if knows_places:
        name_places(document)
    path = Path(gateway.bench.folder) / "openapi.json"
    path.write_text(json.dumps(document))

    command = [sys.executable, "-m", "schemathesis.cli", "run", str(path), "--url", gateway.url, "--checks", CHECKS]
    command += ["--max-examples", "25", "--seed", "1", "--phases", "examples,coverage,fuzzing"]
    command += ["--header", f"Authorization: {token}", "--suppress-health-check", "all", "--request-timeout", "20"]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=380, check=False, cwd=gateway.bench.folder
    )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "request_failed" not in process.log_file.read_text()


def name_places(document: dict[str, Any]) -> None:
    """Lets what is made up be about things that are there."""
    for described in document["paths"].values():
        for operation in described.values():
            for parameter in operation["parameters"]:
                if parameter["name"] in KNOWN:
                    parameter["schema"] = {"enum": KNOWN[parameter["name"]]}
