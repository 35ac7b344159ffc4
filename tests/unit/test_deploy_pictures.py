"""The pictures of the dashboards: what `make pictures` asks and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.local.pictures import FOLDER, PICTURES, NoDataError, Series, asked, draw, panels, series_of

PAGE = FOLDER.parent / "dashboards.md"
ANSWER: dict[str, Any] = {
    "data": {
        "resultType": "matrix",
        "result": [{"metric": {"feed": "amplitude"}, "values": [[1000, "0.5"], [1002, "NaN"], [1004, "2"]]}],
    }
}


@pytest.mark.parametrize("dashboard", PICTURES)
def test_what_is_drawn_is_a_graph_of_its_dashboard_and_is_asked_without_variables(dashboard: str) -> None:
    known = panels(dashboard)
    for title in PICTURES[dashboard]:
        assert known[title]["type"] == "timeseries"
        assert all("$" not in asked(target["expr"]) for target in known[title]["targets"])


@pytest.mark.parametrize("dashboard", PICTURES)
def test_the_page_shows_each_picture(dashboard: str) -> None:
    assert f"(pictures/{dashboard}.png)" in PAGE.read_text()
    assert 10_000 < (FOLDER / f"{dashboard}.png").stat().st_size < 150_000


def test_a_line_has_the_name_that_its_legend_gives_it_and_begins_at_the_start() -> None:
    [line] = series_of(ANSWER, "p50 {{feed}}", 1000.0)

    assert line.name == "p50 amplitude"
    assert (line.seconds[-1], line.values[-1]) == (4.0, 2.0)


def test_a_picture_is_drawn_of_what_prometheus_answers_and_none_without_data(tmp_path: Path) -> None:
    lines = series_of(ANSWER, "{{feed}}", 1000.0)
    graphs: dict[str, list[Series]] = dict.fromkeys(PICTURES["overview"], lines)

    draw("overview", graphs, tmp_path / "pictures" / "overview.png")
    assert (tmp_path / "pictures" / "overview.png").read_bytes().startswith(b"\x89PNG")

    with pytest.raises(NoDataError, match="Records by feed has nothing"):
        draw("overview", graphs | {"Records by feed": []}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
