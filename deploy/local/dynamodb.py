"""DynamoDB as moto imitates it, for the tests: the same requests, answers and errors, in memory."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

from deploy.local.processes import HOST, Server, ports_of

REGION = "eu-west-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything", "AWS_EC2_METADATA_DISABLED": "true"}
"""For whoever speaks to it: it takes any."""


class DynamoDb(Server):
    """A server of ours, which forgets all when it ends."""

    NAME = "dynamodb"
    READY = "Running on http://"
    STOP = signal.SIGTERM
    ABANDONED = signal.SIGKILL

    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def _prepare(self) -> None:
        (self.port,) = ports_of(self.folder, 1)

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "--host", HOST, "--port", str(self.port)]

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, **CREDENTIALS}
