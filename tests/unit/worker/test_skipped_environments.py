from __future__ import annotations

from structlog.testing import capture_logs

from worker.skipped_environments import LONGEST_NAME, MOST_NAMES, SkippedEnvironments


def test_each_environment_is_told_once() -> None:
    skipped = SkippedEnvironments()
    with capture_logs() as logs:
        for name in ("staging", "test", "staging"):
            skipped.note(name)

    assert [(each["event"], each["environment"]) for each in logs] == [
        ("environment_skipped", "staging"),
        ("environment_skipped", "test"),
    ]


def test_names_that_a_source_makes_up_are_bounded_in_length_and_number() -> None:
    skipped = SkippedEnvironments()
    with capture_logs() as logs:
        for number in range(2 * MOST_NAMES):
            skipped.note(f"{number}-" + "x" * 200)

    assert len(logs) == MOST_NAMES
    assert all(len(each["environment"]) == LONGEST_NAME for each in logs)
    assert [each["more_are_told"] for each in logs] == [True] * (MOST_NAMES - 1) + [False]
