"""A Kubernetes of one test run: the real API server, controllers and scheduler, and nodes that only pretend (kwok)."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.local import guard, tools
from deploy.local.processes import HOST, Server, free_ports
from tests.deploy.programs import LIMIT_S, ROOT, ToolFailedError

WAIT_S = 90.0
NODES = ("node-a", "node-b")
LOGGED = '{"event": "environment_skipped", "environment": "staging"}'
"""What every container says in its log."""


class _Program(Server):
    """One of the parts. `arguments` may name its port as `{port}`."""

    NAME = "control plane"
    STOP = signal.SIGTERM
    ABANDONED = signal.SIGKILL

    def __init__(self, program: str, ready: str, folder: Path, *arguments: str, port: int) -> None:
        super().__init__(folder, log=folder / f"{program}.log")
        self.READY = ready  # type: ignore[misc] # each part has a word of its own for it
        self._program = program
        self._arguments = arguments
        self.port = port

    def _prepare(self) -> None:
        """The port is known to the other parts already."""

    def _command(self) -> list[str]:
        return [str(tools.tool(self._program)), *self._arguments]


class ControlPlane:
    """Serves from `with` until its end. `kubectl` and `helm` speak to it as administrators.

    What is executed in a container is run here, with the programs of `programs` first on the PATH.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.kubeconfig = folder / "kubeconfig"
        self.programs = folder / "programs"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        etcd, peer, api, controllers, scheduler, nodes = free_ports(6)
        token = secrets.token_hex(16)
        folder = self._folder
        (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        key = folder / "service-account.key"
        key.write_bytes(_private_key())
        self.kubeconfig.write_text(json.dumps(_kubeconfig(f"https://{HOST}:{api}", token)))

        def start(program: str, ready: str, *arguments: str, port: int) -> None:
            stack.enter_context(_Program(program, ready, folder, *arguments, port=port).start())

        start(
            "etcd",
            "ready to serve client requests",
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://{HOST}:{etcd}",
            f"--advertise-client-urls=http://{HOST}:{etcd}",
            f"--listen-peer-urls=http://{HOST}:{peer}",
            f"--initial-advertise-peer-urls=http://{HOST}:{peer}",
            f"--initial-cluster=default=http://{HOST}:{peer}",
            "--unsafe-no-fsync",
            port=etcd,
        )
        start(
            "kube-apiserver",
            "Serving securely on",
            f"--etcd-servers=http://{HOST}:{etcd}",
            f"--cert-dir={folder}/api",
            f"--bind-address={HOST}",
            f"--secure-port={api}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--kubelet-preferred-address-types=InternalIP",
            port=api,
        )
        self.wait_for("--raw", "/readyz", word="ok")
        ours = ("--leader-elect=false", f"--kubeconfig={self.kubeconfig}", f"--bind-address={HOST}")
        start(
            "kube-controller-manager",
            "Serving securely on",
            *ours,
            f"--secure-port={controllers}",
            f"--cert-dir={folder}/controllers",
            f"--service-account-private-key-file={key}",
            port=controllers,
        )
        start(
            "kube-scheduler",
            "Serving securely on",
            *ours,
            f"--secure-port={scheduler}",
            f"--cert-dir={folder}/scheduler",
            port=scheduler,
        )
        path = {"PATH": f"{self.programs}:{os.environ['PATH']}"}
        process = guard.start(self._kwok(nodes), log=folder / "kwok.log", cwd=folder, environment=os.environ | path)
        stack.callback(guard.end, process)
        for zone, name in enumerate(NODES):
            self.apply(json.dumps(_node(name, f"zone-{zone}")))
        tools.schemas()
        self.kubectl("apply", "--server-side", f"--filename={tools.CRDS}")

    def _kwok(self, port: int) -> list[str]:
        """What pretends to be all nodes; under this port they give logs and execute commands."""
        folder = self._folder
        (folder / "container.log").write_text(f"2026-01-31T08:00:00Z stdout F {LOGGED}\n")
        self.programs.mkdir()
        rules = {
            "ClusterLogs": {"logs": [{"logsFile": str(folder / "container.log")}]},
            "ClusterExec": {"execs": [{"local": {"workDir": str(ROOT)}}]},
        }
        documents = [
            {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": kind, "metadata": {"name": "all"}, "spec": rule}
            for kind, rule in rules.items()
        ]
        (folder / "kwok.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
        return [
            str(tools.tool("kwok")),
            f"--kubeconfig={self.kubeconfig}",
            f"--config={folder}/kwok.yaml",
            "--manage-all-nodes",
            # Without leases, nodes and so all their pods count as lost 50 s after their last sign of life.
            "--node-lease-duration-seconds=40",
            f"--server-address={HOST}:{port}",
            f"--node-ip={HOST}",
            f"--node-port={port}",
            f"--tls-cert-file={folder}/api/apiserver.crt",
            f"--tls-private-key-file={folder}/api/apiserver.key",
        ]

    def kubectl(self, *arguments: str, text: str = "") -> str:
        return self._run("kubectl", *arguments, text=text)

    def helm(self, *arguments: str | Path) -> str:
        return self._run("helm", *map(str, arguments))

    def apply(self, text: str, *arguments: str) -> str:
        return self.kubectl("apply", "--filename=-", *arguments, text=text)

    def get(self, kind: str, namespace: str, *arguments: str) -> list[dict[str, Any]]:
        """All objects of this kind."""
        found = json.loads(self.kubectl("get", kind, f"--namespace={namespace}", "--output=json", *arguments))
        items: list[dict[str, Any]] = found["items"]
        return items

    def wait_for(self, *arguments: str, word: str) -> None:
        """Until `kubectl get` with these arguments prints this word."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                if word in self.kubectl("get", *arguments):
                    return
            except ToolFailedError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def _run(self, name: str, *arguments: str, text: str = "") -> str:
        """Warnings of the API server fail, too: they are what a person would overlook."""
        done = subprocess.run(
            [tools.tool(name), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=text,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=LIMIT_S,
            check=False,
        )
        # At the beginning of a line: the client's own log has the word too, of watches that it ended itself.
        if done.returncode or any(line.startswith("Warning:") for line in done.stderr.splitlines()):
            said = f"{done.stdout[-5000:]}{done.stderr[-5000:]}"
            raise ToolFailedError(f"{name} {' '.join(arguments)} ended with {done.returncode}:\n{said}")
        return done.stdout


def _private_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _kubeconfig(server: str, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "admin", "user": {"token": token}}],
    }


def _node(name: str, zone: str) -> dict[str, Any]:
    capacity = {"cpu": "32", "memory": "64Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone, "disk": "ssd", "arch": "any"}},
        "status": {"allocatable": capacity, "capacity": capacity},
    }
