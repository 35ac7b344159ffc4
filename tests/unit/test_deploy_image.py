"""The image as its Dockerfile says it; tests/deploy/test_image.py builds and runs it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
LAST_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]
IGNORED = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()


def test_both_stages_stand_on_a_base_that_is_given_by_digest() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert "ARG BASE" in DOCKERFILE


def test_packages_come_by_hash_and_from_no_address() -> None:
    installs = re.findall(r"pip install (.+)", DOCKERFILE)

    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    files = [
        DOCKERFILE,
        *((ROOT / "deploy" / name).read_text() for name in ("compose.yaml", "requirements-build.lock")),
    ]
    assert [url for file in files for url in re.findall(r"https?://(?!127\.0\.0\.1)[^\s)\"']+", file)] == []


def test_the_build_backend_is_that_of_the_lock_for_developers() -> None:
    (wanted,) = re.findall(r"^setuptools==\S+", (ROOT / "deploy" / "requirements-build.lock").read_text(), re.MULTILINE)

    assert f"{wanted} " in (ROOT / "deploy" / "requirements-dev.lock").read_text()


def test_the_last_stage_has_no_tools_runs_as_nobody_and_hears_signals() -> None:
    assert "pip install" not in LAST_STAGE
    assert "USER 10001:10001" in LAST_STAGE
    assert 'ENTRYPOINT ["cohort-sync"]' in LAST_STAGE
    assert 'CMD ["run"]' in LAST_STAGE
    assert "HEALTHCHECK" in LAST_STAGE
    assert "org.opencontainers.image.revision" in LAST_STAGE


def test_everything_that_is_copied_is_sent_to_the_builder_and_nothing_else() -> None:
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }

    assert IGNORED[1] == "*"
    assert {line.removeprefix("!") for line in IGNORED if line.startswith("!")} == copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
