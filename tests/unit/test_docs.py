"""The pages about tools say what is true: settings that load, payloads that are taken, and what `parse` prints of them.

A page writes each file that it shows as a block with the file's name (```json payload.json), and what a command does
with it as a console block: `$ cohort-sync parse ...`, and below it the output.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from consumers.formats import known_integrations
from worker.commands import cli
from worker.commands.frame import run_command_line
from worker.config import load

FOLDER = Path(__file__).parents[2] / "deploy" / "docs"
INDEX = FOLDER / "README.md"
GATEWAY = FOLDER / "gateway.md"
"""No tool's page: `tests/integration/test_gateway_docs.py` runs what it shows."""
SCALE = FOLDER / "scale.md"
"""Nor is this: `tests/unit/test_scale.py` holds it to its model."""
DASHBOARDS = FOLDER / "dashboards.md"
"""Nor this: `tests/unit/test_deploy_pictures.py` holds it to its pictures."""
PAGES = sorted(set(FOLDER.glob("*.md")) - {INDEX, GATEWAY, SCALE, DASHBOARDS})
HEADINGS = (r"What to set in \S.*", "What arrives", "What it becomes", "Known traps")
SERVERS = 'kafka: {bootstrap_servers: "127.0.0.1:9092"}\npostgres: {dsn: "postgresql://cohort_sync@127.0.0.1/x"}\n'

all_pages = pytest.mark.parametrize("page", [INDEX, GATEWAY, SCALE, DASHBOARDS, *PAGES], ids=lambda page: page.stem)
each_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


class Shown(NamedTuple):
    """A command of a page, and what it prints according to that page."""

    arguments: list[str]
    output: str


def blocks(page: Path, language: str) -> dict[str, str]:
    """Its fenced blocks of this language by what stands beside that word."""
    return dict(re.findall(rf"^```{language} ?(.*)\n((?:.*\n)*?)```$", page.read_text(), re.MULTILINE))


def commands(page: Path) -> list[Shown]:
    parts = re.split(r"^\$ cohort-sync ", blocks(page, "console")[""], flags=re.MULTILINE)
    return [Shown(shlex.split(first), rest) for first, _, rest in (part.partition("\n") for part in parts[1:])]


def integration_of(command: Shown) -> str:
    return command.arguments[command.arguments.index("--integration") + 1]


@pytest.fixture
def folder_of_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page shows, and nothing of this machine's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COHORT_SYNC_CONFIG", raising=False)
    for name, content in blocks(page, "json").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_every_integration_has_a_feed_and_an_example() -> None:
    known = set(known_integrations())

    assert known - {integration_of(command) for page in PAGES for command in commands(page)} == set()
    assert {name for name in known if not any(f"format: {name}," in page.read_text() for page in PAGES)} == set()


def test_the_index_names_every_page_and_integration_and_links_nothing_that_is_not_there() -> None:
    index = INDEX.read_text()
    linked = set(re.findall(r"\]\(([^)#]+)", index))

    assert {page.name for page in (GATEWAY, SCALE, DASHBOARDS, *PAGES)} - linked == set()
    assert {target for target in linked if not (FOLDER / target).exists()} == set()
    assert [name for name in known_integrations() if f"`{name}`" not in index] == []


@all_pages
def test_every_link_of_a_page_leads_to_a_heading_that_is_there(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        linked = (FOLDER / target) if target else page
        assert linked.exists(), target
        if not heading:
            continue
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert heading in anchors, (target, heading)


@each_page
def test_every_page_has_the_same_headings(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)

    assert len(headings) == len(HEADINGS)
    assert all(re.fullmatch(expected, heading) for expected, heading in zip(HEADINGS, headings, strict=True))


@pytest.mark.parametrize("page", [GATEWAY, *PAGES], ids=lambda page: page.stem)
def test_what_a_page_says_to_set_is_a_configuration_that_loads(page: Path, folder_of_page: Path) -> None:
    path = folder_of_page / "cohort-sync.yaml"
    path.write_text(SERVERS + blocks(page, "yaml")[""])

    assert load(path, {}).feeds


@each_page
@pytest.mark.usefixtures("folder_of_page")
def test_every_example_is_taken_and_becomes_what_the_page_says(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = commands(page)

    assert {file for file in blocks(page, "json") if not any(file in each.arguments for each in shown)} == set()
    for command in shown:
        assert run_command_line(cli, command.arguments) == 0
        assert without_margins(capfd.readouterr().out) == without_margins(command.output)


def without_margins(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
