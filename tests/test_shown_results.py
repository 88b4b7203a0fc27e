"""What results print: value, interval, p-value and method on a line, and a table in a notebook."""

import re
from typing import Any

import numpy as np
import pytest

import cxr_compare
from cxr_compare import Result, metrics

_RAW = re.compile(r"^_?[A-Za-z]+\(\w+=")  # a dataclass or a named tuple as Python shows it


def auroc_difference(**options: Any) -> Any:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    first, second = y + rng.normal(0, 1, 120), y + rng.normal(0, 2, 120)
    return metrics.auroc_difference(y, first, second, **options)


def froc() -> Any:
    true = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
    detections = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
    return metrics.froc(boxes=detections, truth=true, image_ids=["a", "b"])


SHOWN = {
    "auroc_difference": auroc_difference,
    "auroc_difference by patient": lambda: auroc_difference(patients=np.arange(120) // 2),
    "froc": froc,
    "resamples": lambda: metrics.Resamples(3),
    "figure": lambda: metrics.estimate("auroc", [0, 1, 0, 1], [0.2, 0.4, 0.5, 0.9]),
}


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_a_result_prints_its_text(make):
    shown = repr(make())
    assert not _RAW.match(shown)
    assert "\\n" not in shown


def test_a_difference_prints_value_interval_p_value_and_method():
    gap = auroc_difference()
    low, high = gap.ci_low, gap.ci_high
    line = f"{gap.estimate:.3f} (95 % CI {low:.3f} to {high:.3f}), p = {gap.p_value:.3f}"
    shown = repr(gap).replace("\N{MINUS SIGN}", "-")
    assert shown == f"{line}; DeLong 1988, images taken as independent"
    assert "patient" not in repr(gap)
    assert "Obuchowski 1997" in repr(auroc_difference(patients=np.arange(120) // 2))


def test_difference_without_an_interval_gives_the_reason():
    gap = metrics.auroc_difference([0, 1], [0.1, 0.4], [0.3, 0.2])
    assert not gap.has_interval
    assert "fewer than two images of each class" in repr(gap)


def test_a_comparison_prints_its_answer_and_its_table_and_a_notebook_shows_both(world):
    result = Result.open(world.tables_report)
    lines = str(result).splitlines()
    assert lines[0] == result.headline
    assert lines[-1] == f"Report: {result.page}"
    assert all(f"Caution: {caution}" in lines for caution in result.cautions)
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in result.systems)
    assert repr(result).startswith("<Result of Boxes and Scores")
    notebook = result._repr_html_()
    assert notebook.startswith("<p><b>")
    assert "<table" in notebook
    assert result.plot("roc")._repr_png_().startswith(b"\x89PNG")


def test_what_a_command_shows_is_text_and_values(world):
    shown = cxr_compare.show(world.tables_report)
    assert str(shown) == str(Result.open(world.tables_report))
    assert shown.to_dict()["headline"] in str(shown)
