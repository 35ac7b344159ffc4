"""The README says what is there: promises have tests, reasons have rows, and settings and metrics exist."""

from __future__ import annotations

import re
from pathlib import Path

from consumers.errors import SENTENCES
from consumers.formats import HEADER, known_integrations
from worker.metrics import Metrics
from worker.projection_metrics import ProjectionMetrics
from worker.settings import LimitSettings

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def test_every_test_that_a_promise_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", README))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert named
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_every_reason_has_its_row_with_its_sentence() -> None:
    assert [reason for reason, sentence in SENTENCES.items() if f"| `{reason}` | {sentence} |" not in README] == []


def test_every_limit_is_named() -> None:
    assert [name for name in LimitSettings.model_fields if f".{name}`" not in README] == []


def test_every_format_has_its_row() -> None:
    assert [name for name in (HEADER, *known_integrations()) if f"\n| `{name}` | " not in README] == []


def test_every_metric_that_is_named_exists() -> None:
    named = set(re.findall(r"`(cohort_sync_\w+)", README)) - {"cohort_sync"}
    text = (Metrics().exposition() + ProjectionMetrics(["sdk"]).exposition()).decode()

    assert {name for name in named if name not in text} == set()


def test_every_file_that_is_linked_exists() -> None:
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]

    assert [target for target in linked if not (ROOT / target).exists()] == []


def test_no_module_is_larger_than_a_person_can_hold() -> None:
    modules = [path for top in ("worker", "consumers", "stores") for path in (ROOT / top).rglob("*.py")]

    assert [path.name for path in modules if len(path.read_text().splitlines()) > 400] == []
