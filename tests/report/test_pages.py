"""Views by page, a run as one row, figures as CSV: what list and explorer show of saved files."""

import csv
import io
import math

import pytest

from interp_unlearn._core import ConfigError, write_json
from interp_unlearn.report import (
    PAGES,
    board_row,
    compare,
    missing_views,
    plots,
    read_board_row,
    read_run,
    register_view,
    views_of,
)


@pytest.fixture(scope="module")
def comparison(runs):
    return compare([read_run(runs[1])])[0]


def test_each_page_draws_what_the_run_saved(comparison):
    for page in PAGES:
        for view in views_of(comparison, page):
            chosen = {name: options[0] for name, options in view.choices(comparison).items()}
            assert view.draw(comparison, chosen).figures, view.name


def test_what_is_missing_says_how_to_get_it(tmp_path):
    write_json(tmp_path / "config.json", {"kind": "run", "name": "half"})
    half = compare([read_run(tmp_path)])[0]
    found = {view.name: view.missing for page in PAGES for view in missing_views(half, page)}
    assert "interp-unlearn evidence RUN --only neuron_map" in found["neurons"]
    assert all(found.values())
    assert not any(views_of(half, page) for page in PAGES)


def test_a_view_is_either_shown_or_missing(comparison):
    for page in PAGES:
        shown = {view.name for view in views_of(comparison, page)}
        assert not shown & {view.name for view in missing_views(comparison, page)}


def test_a_name_of_a_view_is_taken_once(comparison):
    with pytest.raises(ConfigError, match="already registered"):
        register_view(views_of(comparison, "run")[0])


def test_a_row_is_the_same_whether_all_or_little_was_read(runs):
    assert read_board_row(runs[0]) == board_row(read_run(runs[0]))


def test_a_row_says_what_was_forgotten_and_kept(runs):
    row = read_board_row(runs[1])  # npo: strength 0.85, damage 0.06
    assert row.forgetting == pytest.approx(1 - 0.98 * 0.15)
    assert row.retention == pytest.approx(0.98 * 0.94)
    assert row.forgetting_gold > row.forgetting_before
    assert row.side_effect > 0
    assert row.state == "done"


def test_a_row_of_a_half_written_run_has_no_numbers(tmp_path):
    write_json(tmp_path / "config.json", {"kind": "run", "name": "half"})
    row = read_board_row(tmp_path)
    assert row.state == ""
    assert math.isnan(row.forgetting)
    assert row.problems


def test_every_point_of_a_figure_is_a_line_of_csv():
    figure = plots.forgetting_scatter(
        {"npo": [(0.5, 1.0, "Japan"), (math.nan, 1.0, "lost")], "gold": [(1, 1, "Japan")]}
    )
    lines = list(csv.reader(io.StringIO(plots.figures_csv([figure]))))
    assert lines[0] == ["figure", "series", "x", "y", "z"]
    assert lines[1:] == [
        ["Forgetting against retention", "npo", "0.5", "1.0", ""],
        ["Forgetting against retention", "gold", "1", "1", ""],
    ]
