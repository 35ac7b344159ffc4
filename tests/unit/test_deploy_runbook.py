"""The runbook has an entry for each alert, all of the same parts, and its links and figures are right.

Its commands run in tests/integration/test_runbook.py and, those for Kubernetes, in tests/deploy/test_runbook.py.
"""

from __future__ import annotations

import re

import pytest

from tests.runbook import ELSEWHERE, ON_KUBERNETES, ON_SERVERS, RUNBOOK, commands
from tests.unit.test_deploy_alerts import ALERTS

TEXT = RUNBOOK.read_text()
ROOT = RUNBOOK.parents[1]
ENTRIES = dict(re.findall(r"^### (CohortSync\w+)\n((?:(?!#).*\n)+)", TEXT, re.MULTILINE))


def test_every_alert_has_its_entry_and_every_entry_its_alert() -> None:
    assert ENTRIES.keys() == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_says_what_it_means_how_to_see_it_what_to_do_and_when_it_is_over(entry: str) -> None:
    for part in ("Means", "See", "Do", "Over when"):
        assert f"**{part}**" in ENTRIES[entry], part


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) - anchors == set()
    assert [file for file in re.findall(r"\]\(([^)#]+)\)", TEXT) if not (RUNBOOK.parent / file).exists()] == []


def test_every_command_is_one_that_a_test_runs() -> None:
    assert {command.program for command in commands()} == {*ON_SERVERS, *ON_KUBERNETES, *ELSEWHERE}
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.line.split()[1] for command in commands(ELSEWHERE)} <= set(targets)


def test_figures_are_those_of_the_readme() -> None:
    capacity = TEXT.partition("### Capacity")[2]
    speed = (ROOT / "README.md").read_text().partition("## Speed")[2]

    figures = re.findall(r"\| (\d[\d,.]*)", capacity)
    assert len(figures) >= 6
    assert [figure for figure in figures if figure not in speed] == []
