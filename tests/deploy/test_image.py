"""The image, built from its Dockerfile and run as the chart runs it: read-only, as nobody, without rights."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local import guard
from tests.deploy.image import Image, base_files, run
from tests.worker_process import Bench, eventually, webhook

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap, and buildah without an engine, need root"),
]
WITHOUT_SERVERS = """
kafka: {bootstrap_servers: "127.0.0.1:1"}
postgres: {dsn: "postgresql://u@127.0.0.1:2/d"}
feeds: [{name: cohorts, topics: [cohorts], format: header, environment: production}]
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    yield Image(folder).build(base_files())
    shutil.rmtree(folder)  # half a gigabyte, which pytest would keep


def test_it_says_what_it_is_and_runs_the_worker_as_nobody(image: Image) -> None:
    assert image.settings["User"] == "10001:10001"
    assert (image.settings["Entrypoint"], image.settings["Cmd"]) == (["cohort-sync"], ["run"])
    assert image.settings["ExposedPorts"].keys() == {"8400/tcp", "9400/tcp"}
    assert image.settings["Labels"]["org.opencontainers.image.title"] == "cohort-sync"
    assert image.settings["Labels"]["org.opencontainers.image.revision"] == "abc"


def test_it_holds_nothing_to_build_or_install_with(image: Image) -> None:
    programs = {"pip", "pip3", "gcc", "cc", "make", "git", "apt-get"} & {
        file.name for folder in ("opt/cohort-sync/bin", "usr/local/bin") for file in (image.root / folder).iterdir()
    }
    packages = {folder.name for folder in (image.root / "opt/cohort-sync/lib").glob("python3*/site-packages/*")}

    assert programs == set()
    assert not {"pip", "setuptools", "wheel"} & packages
    assert {"worker", "consumers", "stores"} <= packages
    assert [name for name in ("opt/build", "src", "wheels") if (image.root / name).exists()] == []
    assert "tests" not in packages


async def test_it_migrates_stores_a_record_as_process_one_and_drains_when_told(image: Image, bench: Bench) -> None:
    environment = {"COHORT_SYNC_HTTP__HOST": "127.0.0.1"}
    check = image.command("cohort-sync", "migrate", "--check", config=bench.config, environment=environment)
    assert run(check) == "the schema is up to date\n"

    log = bench.folder / "image.log"
    container = guard.start(image.command(config=bench.config, environment=environment), log=log, cwd=bench.folder)
    await bench.publish(bench.webhook_topic, webhook("c1", "u1", "u2"))

    async def is_stored() -> bool:
        assert container.poll() is None, log.read_text()
        return await bench.members("amplitude-c1") == {"u1": True, "u2": True}

    await eventually(is_stored)
    (first,) = psutil.Process(container.pid).children()
    status = dict(line.split(":", 1) for line in status_of(first).splitlines())
    assert status["NSpid"].split()[-1] == "1"
    assert status["CapEff"].strip() == "0" * 16
    first.send_signal(signal.SIGTERM)

    assert container.wait(30) == 0, log.read_text()
    assert sum((await bench.committed(bench.webhook_topic)).values()) == 1


def status_of(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/status").read_text()


def test_its_health_check_tells_whether_the_loop_goes_on(image: Image, tmp_path: Path) -> None:
    config = tmp_path / "config" / "cohort-sync.yaml"
    config.parent.mkdir()
    config.write_text(WITHOUT_SERVERS)
    kind, *check = image.settings["Healthcheck"]["Test"]
    assert kind == "CMD"

    def checked_beside(program: str) -> int:
        script = f'{program} & for try in $(seq 20); do sleep 0.5; "$@" && exit 0; done; exit 1'
        command = image.command("sh", "-c", script, "sh", *check, config=config, environment={}, network=False)
        return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode

    assert checked_beside("cohort-sync run") == 0
    assert checked_beside("true") == 1


@pytest.mark.parametrize("folder", ["/", "/etc/cohort-sync/config", "/opt/cohort-sync"])
def test_it_can_write_nowhere_but_to_tmp(image: Image, tmp_path: Path, folder: str) -> None:
    (tmp_path / "cohort-sync.yaml").write_text(WITHOUT_SERVERS)
    script = f"echo x > /tmp/x && ! echo x > {folder}/x"
    command = image.command("sh", "-c", script, config=tmp_path / "cohort-sync.yaml", environment={})

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert "Read-only file system" in done.stderr
