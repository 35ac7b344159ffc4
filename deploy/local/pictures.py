"""`make pictures`: the dashboards' main graphs, with data of a real run, as a real Prometheus answers them.

All parts run for some minutes under a load that has three events in it: a large batch, as Amplitude sends each hour, a
PostgreSQL that freezes, and bad records. Then the expressions of the dashboards themselves are asked, and drawn into
`deploy/docs/pictures`. A graph without data fails the command.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import matplotlib as mpl
import psutil
import yaml
from aiokafka import AIOKafkaProducer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.progress import Progress

from deploy.local import guard, tools
from deploy.local.dashboards import FOLDER as DASHBOARDS
from deploy.local.demo import Demo, console, hourly_batch, wait_for
from deploy.local.processes import HOST, free_ports
from deploy.local.servers import Postgres, create_topics, start_kafka, start_postgres
from deploy.local.settings import TOPICS, sample_settings
from deploy.local.valkey import Valkey

FOLDER = guard.ROOT / "deploy" / "docs" / "pictures"
PICTURES = {
    "overview": ("Freshness by feed", "Records by feed", "Deltas by change", "Dead letters by reason"),
    "pipeline": (
        "Lag by partition",
        "Age of the last stored record, by partition",
        "Seconds in each stage, a second and worker",
        "Writes by outcome",
    ),
    "stores": ("Age of what the SDKs are told", "Cursor lag", "Applied memberships", "Oldest open write transaction"),
    "gateway": (
        "Requests by route",
        "Time to the answer, by route",
        "Answers by status",
        "Refused, by route and status",
    ),
}
"""The graphs that are drawn of each dashboard, by their titles."""
SCRAPE_S, RATE_INTERVAL = 2, "16s"
RUN_S, BATCH_AT_S, FREEZE_AT_S, THAW_AT_S, BAD_AT_S = 240, 50, 110, 135, 180
MANY_LINES = 5
BATCHES = 8
"""How often the batch of 50,000 members is sent, under as many cohorts."""
UNITS = {"s": "seconds", "reqps": "a second", "ops": "a second", "short": "", "percentunit": "%"}
_LEGEND = re.compile(r"{{(\w+)}}")


class Series(NamedTuple):
    """One line of a graph: seconds since the start, and values."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]


class NoDataError(Exception):
    """A graph has nothing to show. The text names it."""


def panels(dashboard: str) -> dict[str, dict[str, Any]]:
    """The panels of a dashboard, by title."""
    found = json.loads((DASHBOARDS / f"{dashboard}.json").read_text())["panels"]
    return {panel["title"]: panel for panel in found}


def asked(expression: str) -> str:
    """The expression as Grafana would send it."""
    return expression.replace("$__rate_interval", RATE_INTERVAL).replace("$namespace", ".*")


def series_of(answer: dict[str, Any], legend: str, start: float) -> list[Series]:
    """What Prometheus' `query_range` answered, each line by its legend."""
    return [
        Series(
            _named(legend, each["metric"]),
            [float(at) - start for at, _ in each["values"]],
            [float(value) for _, value in each["values"]],
        )
        for each in answer["data"]["result"]
    ]


def _named(legend: str, labels: dict[str, str]) -> str:
    return _LEGEND.sub(lambda name: labels.get(name[1], ""), legend).strip()


def draw(dashboard: str, graphs: dict[str, list[Series]], file: Path) -> None:
    """One picture of a dashboard's graphs. Raises `NoDataError`."""
    described = panels(dashboard)
    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "x"})
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (title, lines) in zip(grid.flat, graphs.items(), strict=True):
        if not any(value > 0 for line in lines for value in line.values):
            message = f"{dashboard}: {title} has nothing to show"
            raise NoDataError(message)
        _draw_graph(axes, title, described[title]["fieldConfig"]["defaults"]["unit"], lines)
    for axes in grid[1]:
        axes.set_xlabel("minutes since the start")
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _draw_graph(axes: Axes, title: str, unit: str, lines: Sequence[Series]) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_ylabel(UNITS[unit])
    for begin, end, name in ((BATCH_AT_S, BATCH_AT_S, "batch"), (FREEZE_AT_S, THAW_AT_S, "PostgreSQL frozen")):
        axes.axvspan(begin / 60, end / 60, color="0.88", label=None, zorder=0)
        axes.annotate(name, (begin / 60, 1), xycoords=("data", "axes fraction"), color="0.4", fontsize=7, va="top")
    shown = [line for line in lines if any(value > 0 for value in line.values)]
    for line in sorted(shown, key=lambda line: -max(line.values)):
        axes.plot([at / 60 for at in line.seconds], line.values, label=line.name or None, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, RUN_S / 60)
    axes.grid(axis="y", color="0.92")
    scale = 100 if unit == "percentunit" else 1
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * scale:,g}"))
    if any(line.name for line in shown):
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, 0.93), frameon=False, fontsize=7, ncols=1 + len(shown) // MANY_LINES
        )


def main() -> int:
    """Runs everything and draws; its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    with tempfile.TemporaryDirectory(prefix="cohort-sync-pictures-") as folder:
        drawn = _run(Path(folder))
    try:
        for dashboard, graphs in drawn.items():
            draw(dashboard, graphs, FOLDER / f"{dashboard}.png")
    except NoDataError as exc:
        console.print(f"[bold red]No picture:[/] {exc}")
        return 1
    console.print(f"[bold green]Drawn[/] into {FOLDER}")
    return 0


def _run(folder: Path) -> dict[str, dict[str, list[Series]]]:
    """What Prometheus answers after a run, by dashboard and title."""
    prometheus = tools.tool("prometheus")
    with (
        console.status("Starting Apache Kafka, PostgreSQL and Valkey"),
        start_kafka(folder / "kafka") as kafka,
        start_postgres(folder / "postgres") as postgres,
        Valkey(folder / "valkey").start() as valkey,
    ):
        asyncio.run(create_topics(kafka.bootstrap_servers, TOPICS))
        config = folder / "cohort-sync.yaml"
        settings = sample_settings(kafka.bootstrap_servers, postgres.dsn, valkey.url, http_port=0, gateway_port=0)
        config.write_text(yaml.safe_dump(settings))
        demo = Demo(folder, config)
        demo.show("migrate")
        [token] = demo.rows("tokens", "create", "--name", "Segment", "--role", "writer", "--feed", "segment")
        with demo.running("run") as worker, demo.running("project") as projector, demo.running("gateway") as gateway:
            addresses = {"worker": worker, "projector": projector, "gateway": gateway}
            with _prometheus(prometheus, addresses, folder) as url:
                start = time.time()
                load = _Load(kafka.bootstrap_servers, postgres, demo.gateway_url(), str(token["token"]))
                asyncio.run(load.run())
                return _ask(url, start)


@contextmanager
def _prometheus(program: Path, addresses: dict[str, str], folder: Path) -> Iterator[str]:
    targets = [
        # Without a namespace: there is only one, and its name would stand in every legend.
        {"job_name": name, "static_configs": [{"targets": [url.removeprefix("http://")], "labels": {"pod": name}}]}
        for name, url in addresses.items()
    ]
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": f"{SCRAPE_S}s"}, "scrape_configs": targets}))
    [port] = free_ports(1)
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    process: psutil.Popen = guard.start(command, log=folder / "prometheus.log", cwd=folder, environment={})
    url = f"http://{HOST}:{port}"
    try:
        wait_for("Prometheus", lambda: _answers(f"{url}/-/ready"))
        yield url
    finally:
        guard.end(process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def _ask(url: str, start: float) -> dict[str, dict[str, list[Series]]]:
    drawn: dict[str, dict[str, list[Series]]] = {}
    for dashboard, titles in PICTURES.items():
        known = panels(dashboard)
        for title in titles:
            lines = drawn.setdefault(dashboard, {}).setdefault(title, [])
            for target in known[title]["targets"]:
                parameters: dict[str, str | float] = {
                    "query": asked(target["expr"]),
                    "start": start,
                    "end": start + RUN_S,
                    "step": SCRAPE_S,
                }
                answer = httpx.get(f"{url}/api/v1/query_range", params=parameters).raise_for_status().json()
                lines += series_of(answer, target.get("legendFormat", ""), start)
    return drawn


class _Load:
    """Some minutes of what a day brings."""

    def __init__(self, bootstrap_servers: str, postgres: Postgres, gateway_url: str, write_key: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._postgres = postgres
        self._gateway_url = gateway_url
        self._auth = httpx.BasicAuth(write_key, "")
        self._started_at = time.monotonic()

    async def run(self) -> None:
        """Returns when the time is over."""
        async with (
            AIOKafkaProducer(bootstrap_servers=self._bootstrap_servers, linger_ms=5) as producer,
            asyncio.TaskGroup() as group,
        ):
            of_kafka = self._steady(producer), self._batch(producer), self._bad(producer)
            for part in (*of_kafka, self._calls(), self._freeze(), self._show()):
                group.create_task(part)

    def _is_over(self) -> bool:
        return time.monotonic() - self._started_at > RUN_S

    async def _until(self, second: float) -> None:
        await asyncio.sleep(max(0.0, self._started_at + second - time.monotonic()))

    async def _steady(self, producer: AIOKafkaProducer) -> None:
        """A thousand deltas a second, nine joins for each leave of somebody who is in."""
        number = 0
        while not self._is_over():
            number += 1
            leaves = number % 10 == 0
            first = (number - 4 * leaves) * 200
            users = [{"user_id": f"u{first + each}"} for each in range(200)]
            record = {"cohort_id": f"steady{number % 4}", "in_cohort": not leaves, "users": users}
            await producer.send("cohorts.amplitude-webhook", json.dumps(record).encode())
            await self._until(number * 0.2)

    async def _batch(self, producer: AIOKafkaProducer) -> None:
        await self._until(BATCH_AT_S)
        for cohort in range(BATCHES):
            for record in hourly_batch():
                value = json.dumps(record | {"cohort_id": f"weekly{cohort}"}).encode()
                await producer.send("cohorts.amplitude-webhook", value)

    async def _bad(self, producer: AIOKafkaProducer) -> None:
        await self._until(BAD_AT_S)
        users = [{"user_id": each} for each in ("good", None, "")]
        for value in ({"cohort_id": "steady1", "in_cohort": True, "users": users}, {"no": "shape"}):
            for _ in range(40):
                await producer.send("cohorts.amplitude-webhook", json.dumps(value).encode())
                await asyncio.sleep(0.2)

    async def _calls(self) -> None:
        """Thirty identify calls a second, of which some have no user."""
        personas = {"computation_class": "audience", "computation_id": "aud_1", "computation_key": "vips"}
        number = 0
        async with httpx.AsyncClient(base_url=self._gateway_url, auth=self._auth, timeout=30) as client:
            while not self._is_over():
                number += 1
                call = {"traits": {"vips": True}, "context": {"personas": personas}}
                who = {"userId": f"c{number}"} if number % 20 else {}
                await client.post("/v1/identify", json=call | who)
                if number % 3 == 0:
                    await client.post("/v1/page", json={"userId": f"c{number}"})
                await self._until(number / 30)

    async def _freeze(self) -> None:
        await self._until(FREEZE_AT_S)
        self._postgres.suspend()
        await self._until(THAW_AT_S)
        self._postgres.resume()

    async def _show(self) -> None:
        with Progress(console=console) as progress:
            task = progress.add_task("Running under load", total=RUN_S)
            while not self._is_over():
                progress.update(task, completed=time.monotonic() - self._started_at)
                await asyncio.sleep(1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (tools.ToolNotBuiltError, subprocess.SubprocessError) as failed:
        sys.exit(str(failed))
