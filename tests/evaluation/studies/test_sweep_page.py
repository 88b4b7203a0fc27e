"""The page of a sweep shows every trial, escapes texts, and states its optimism."""

from pathlib import Path
from typing import Any

import pytest

from cxr_compare.evaluation.studies.study_sentences import study_sentence
from cxr_compare.evaluation.studies.sweep_page import (
    PAGE,
    sentences,
    setting_axis,
    trial_columns,
    trial_rows,
    write_page,
)

LR = "training.learning_rate"
OPTIMISER = "training.optimiser"


def _trial(number: int, value: float | None, state: str = "complete", **more: Any) -> Any:
    return {
        "number": number,
        "state": state,
        "value": value,
        "best_epoch": value and 2,
        "epochs": value and 3,
        "settings": {LR: f"{1e-4 * (number + 1)}", OPTIMISER: "adamw"},
        "seconds": value and 90.0,
        "reason": "",
        "run": f"trials/{number:03d}",
        **more,
    }


def _page_of(trials: list[Any], direction: str = "maximize") -> dict[str, Any]:
    complete = [each for each in trials if each["state"] == "complete"]
    pick = max if direction == "maximize" else min
    values = sorted(each["value"] for each in complete)
    spread = {"n": len(values), "low": values[0], "median": 0.6, "high": values[-1]}
    return {
        "name": "Tiny <b>",
        "data_set": {"name": "RSNA"},
        "trials": trials,
        "space": {LR: "0.0001 to 0.01 on a log scale", OPTIMISER: "adamw, sgd"},
        "scales": {LR: "log", OPTIMISER: ["adamw", "sgd"]},
        "objective": "auroc",
        "direction": direction,
        "sweep_seed": 0,
        "as_it_stands": 0,
        "spread": spread,
        "best": pick(complete, key=lambda each: each["value"]),
        "provenance": {"command": "cxr"},
    }


TRIALS = [
    _trial(0, 0.5),
    _trial(1, None, "failed", reason="ended by SIGKILL <script>"),
    _trial(2, 0.75),
    _trial(3, 0.75, "repeated", reason="as trial 2, not trained again", run="trials/002"),
    _trial(4, None, "unfinished"),
]


def test_the_answer_comes_first_and_its_optimism_last() -> None:
    statements = sentences(_page_of(TRIALS))
    assert "Trial 2 is best" in statements[0]
    assert "AUROC 0.750 at epoch 2" in statements[0]
    assert study_sentence("sweep", "spread", 2, "AUROC", 0.5, 0.75, 0.6) in statements
    assert study_sentence("sweep", "unchanged", 0, 0.5) in statements
    assert statements[-1] == study_sentence("sweep", "optimistic", 2, 0.75)


def test_pruned_trials_are_counted_with_their_epochs() -> None:
    stopped = {"state": "pruned", "reason": "epoch 2: behind"}
    pruned = [
        _trial(5, None, **{**stopped, "epochs": 2}),
        _trial(6, None, **{**stopped, "epochs": 3}),
    ]
    sweep = _page_of([*TRIALS, *pruned])
    assert study_sentence("sweep", "pruned", 2, 5) in sentences(sweep)
    assert [row["epoch"] for row in trial_rows(sweep)] == ["2 of 3"] * 3 + ["–"] * 2 + [
        "– of 2",
        "– of 3",
    ]


@pytest.mark.parametrize(
    ("direction", "order"), [("maximize", [2, 3, 0, 1, 4]), ("minimize", [0, 2, 3, 1, 4])]
)
def test_the_best_trial_is_the_first_row_and_those_without_a_figure_the_last(direction, order):
    sweep = _page_of(TRIALS, direction)
    rows = trial_rows(sweep)
    assert [row["number"] for row in rows] == order
    assert [row["best"] for row in rows] == [True, *[False] * 4]
    assert all(len(row["settings"]) == len(trial_columns(sweep)) - 6 for row in rows)


def test_the_page_is_one_file_with_a_chart_a_key_and_escapes_what_it_shows(tmp_path: Path) -> None:
    text = write_page(_page_of(TRIALS), tmp_path).read_text()
    assert [path.name for path in tmp_path.iterdir()] == [PAGE]
    assert text.count("data-chart=") == 3
    assert "<b>failed</b>: ended by SIGKILL &lt;script&gt;" in text
    assert "Sweep of Tiny &lt;b&gt;" in text
    assert 'href="trials/002/"' in text
    assert 'href="trials/001/"' not in text  # it has no run to show
    assert 'href="trials/001.log"' in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_page_without_a_figure_says_so(tmp_path: Path) -> None:
    sweep = {**_page_of(TRIALS), "trials": TRIALS[1:2], "best": None, "spread": None}
    text = write_page(sweep, tmp_path).read_text()
    assert "None of 1 trial has a figure on validation yet." in text
    assert "data-chart=" not in text


def test_listed_values_lie_in_numeric_order_and_their_names_do_not_overlap() -> None:
    listed = ["5e-4", "2e-4", "0.001", "0.002", "0.004", "0.0001", "1e-07", "1e-06", "1.0"]
    axis, at = setting_axis(LR, ["1.0", "1e-07", "5e-4"], listed)
    assert at == [8, 0, 4]
    assert [name for _, name in axis.ticks] == ["1e-07", "0.0001", "5e-4", "0.002", "1.0"]
    assert [name for _, name in setting_axis(OPTIMISER, ["sgd"], ["sgd", "adamw"])[0].ticks] == [
        "sgd",
        "adamw",
    ]
