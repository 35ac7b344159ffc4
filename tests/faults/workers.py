"""The workers of a campaign, kept alive as Kubernetes keeps them: one that ends is replaced."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.worker_process import ServiceProcess, eventually

RESTART_S = 0.5
GRACE_S = 60.0
PROBE_S = 1.0
STARTED = ("worker_started", "projectors_started")


class Resources(NamedTuple):
    """What a process holds."""

    open_files: int
    tasks: int
    memory_bytes: int


class Pod:
    """One worker with its place in the deployment."""

    def __init__(self, command: str, config: Path, log: Path) -> None:
        self.process = ServiceProcess(command, config=config, log=log, module="tests.faults.blockable_worker")
        self.is_frozen = False
        self.is_replaced = False

    def freeze(self) -> None:
        self.is_frozen = True
        self.process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send(signal.SIGCONT)
        self.is_frozen = False


class Workers:
    """So many processes of one command. What goes wrong with them is in `complaints`."""

    def __init__(self, config: Path, folder: Path, *, count: int, command: str = "run") -> None:
        self._command = command
        self.config, self._folder = config, folder
        self._number = 0
        self.complaints: list[str] = []
        self._started: list[Pod] = []
        self.pods = [self._start() for _ in range(count)]

    def one(self, randomness: random.Random) -> Pod:
        """Any of those that nobody is at already."""
        free = [pod for pod in self.pods if not pod.is_frozen and not pod.is_replaced]
        return randomness.choice(free or self.pods)

    async def replace(self, pod: Pod, signum: signal.Signals) -> None:
        """Ends one by this signal and starts another in its place."""
        if pod.is_replaced or pod.is_frozen:
            return
        pod.is_replaced = True
        await self._end(pod, signum)
        await asyncio.sleep(RESTART_S)
        self.pods[self.pods.index(pod)] = self._start()

    def start_guest(self) -> Pod:
        """One more, for a while."""
        return self._start()

    async def stop_guest(self, guest: Pod, signum: signal.Signals) -> None:
        await self._end(guest, signum)

    async def watch(self) -> None:
        """Asks for life signs, as the kubelet does, and replaces who ended by itself. For as long as it may."""
        while True:
            for pod in list(self.pods):
                if pod.is_frozen or pod.is_replaced:
                    continue
                if pod.process.returncode is not None:
                    tail = pod.process.log_file.read_text()[-500:]
                    self.complaints.append(f"a worker ended by itself with {pod.process.returncode}: {tail}")
                    self.pods[self.pods.index(pod)] = self._start()
                elif not await self._is_alive(pod):
                    self.complaints.append(f"{pod.process.log_file.name}: /healthz was not 200")
            await asyncio.sleep(PROBE_S)

    async def resources(self) -> Resources:
        """The most that any of the workers holds now."""
        return Resources(*map(max, zip(*[await resources_of(pod) for pod in self.pods], strict=True)))

    def kill_all(self) -> None:
        for pod in self._started:
            pod.process.kill()

    def _start(self) -> Pod:
        self._number += 1
        pod = Pod(self._command, self.config, self._folder / f"{self._command}-{self._number}.log")
        self._started.append(pod)
        return pod

    async def _end(self, pod: Pod, signum: signal.Signals) -> None:
        started = time.monotonic()
        pod.process.send(signum)
        status = await pod.process.wait(GRACE_S + 10)
        took_s = time.monotonic() - started
        is_young = not any(line.get("event") in STARTED for line in pod.process.events())
        if signum is signal.SIGTERM and (took_s > GRACE_S or (status and not is_young)):
            self.complaints.append(f"{pod.process.log_file.name}: SIGTERM gave {status} after {took_s:.0f} s")

    async def _is_alive(self, pod: Pod) -> bool:
        if not any(line.get("event") == "http_server_started" for line in pod.process.events()):
            return True
        try:
            return (await pod.process.get("/healthz")).status_code == httpx.codes.OK
        except httpx.TransportError:
            # It may have been ended, or frozen, while we asked.
            return pod.is_frozen or pod.is_replaced or pod.process.returncode is not None


async def metrics_of(pod: Pod) -> dict[str, float]:
    """What it measures, by name without the prefix; of several label sets the sum."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families((await pod.process.get("/metrics")).text):
        for sample in family.samples:
            name = sample.name.removeprefix("cohort_sync_")
            found[name] = found.get(name, 0.0) + sample.value
    return found


async def resources_of(pod: Pod) -> Resources:
    """What it holds now, once it has counted its tasks: one that just started has not."""
    process = psutil.Process(pod.process.pid)

    async def tasks() -> int:
        return int((await metrics_of(pod))["event_loop_tasks"])

    return Resources(process.num_fds(), await eventually(tasks), process.memory_info().rss)
