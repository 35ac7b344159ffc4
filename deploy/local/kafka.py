"""Apache Kafka as one Java process."""

from __future__ import annotations

import base64
import signal
import uuid
from pathlib import Path

from deploy.local.kafka_jars import kafka_jars
from deploy.local.processes import HOST, Server, ports_of, run

LOGGING = Path(__file__).parent / "kafka-log4j2.properties"

JVM = (
    "-Xmx512m",  # it starts with 256 MB; records of 10 MB, some at a time, want more
    # Measured on two cores: up in 1.7 s instead of 2.2 s, with two thirds of the CPU time of the default G1 and C2, at
    # the same 180,000 records a second, where the client is what limits.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
)

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # A killed broker may come back only when its last session has expired: after 3 s instead of 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",  # so that a wrong topic name shows here too
    "message.max.bytes": str(16 << 20),
    "log.retention.ms": "-1",  # samples carry times of years ago, and would be deleted half a minute later
    "log.cleaner.dedupe.buffer.size": str(16 << 20),  # the default is a quarter of the heap, for one small topic
}


class Kafka(Server):
    """One broker that is its own controller."""

    NAME = "kafka"
    READY = "Kafka Server started"
    STOP = signal.SIGTERM
    ABANDONED = signal.SIGKILL

    port: int
    proxied_port: int
    """Where a proxy may listen that forwards to `behind_proxy_port`: who connects there is told to stay with it."""
    behind_proxy_port: int

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _scratch(self) -> Path:
        """Where Java unpacks the codecs; it leaves them there when it is killed."""
        return self.folder / "tmp"

    def _prepare(self) -> None:
        self.port, self._controller_port, self.proxied_port, self.behind_proxy_port = ports_of(self.folder, 4)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        self._scratch.mkdir(exist_ok=True)
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def _settings(self) -> dict[str, str]:
        controller = f"{HOST}:{self._controller_port}"
        return SETTINGS | {
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{controller},"
            f"PROXIED://{HOST}:{self.behind_proxy_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port},PROXIED://{HOST}:{self.proxied_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
            "controller.quorum.bootstrap.servers": controller,
            "log.dirs": str(self.folder / "data"),
        }

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = self._java("kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster_id}")
        run([*command, f"--config={self._properties}"], cwd=self.folder)

    def _command(self) -> list[str]:
        return self._java("kafka.Kafka", str(self._properties))

    def _java(self, *arguments: str) -> list[str]:
        options = [f"-Dlog4j2.configurationFile={LOGGING}", f"-Djava.io.tmpdir={self._scratch}"]
        return ["java", *JVM, *options, "-cp", f"{kafka_jars()}/*", *arguments]
