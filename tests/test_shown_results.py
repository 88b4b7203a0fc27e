"""What results print: value, interval, p-value and method in lines, and a table in a notebook."""

import re
from typing import Any

import numpy as np
import pytest

from cxr_compare import metrics

_RAW = re.compile(r"^_?[A-Za-z]+\(\w+=")  # a dataclass or a named tuple as Python shows it


def auroc_difference(**options: Any) -> Any:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    first, second = y + rng.normal(0, 1, 120), y + rng.normal(0, 2, 120)
    return metrics.auroc_difference(y, first, second, **options)


def boxes() -> dict[str, Any]:
    true = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
    detections = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
    return {"boxes": detections, "truth": true, "image_ids": ["a", "b"]}


RESULTS = {
    "auroc_difference": auroc_difference,
    "auroc_difference by patient": lambda: auroc_difference(patients=np.arange(120) // 2),
    "estimate": lambda: metrics.estimate("auroc", [0, 1, 0, 1], [0.2, 0.4, 0.5, 0.9]),
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_a_result_prints_its_text_and_a_table(make):
    result = make()
    assert not _RAW.match(repr(result))
    assert "\\n" not in repr(result)
    assert re.match(r"<(table|pre|p)\b", result._repr_html_())


def test_arrays_that_metrics_return_have_a_label():
    curve, matches = metrics.froc(**boxes()), metrics.match_boxes(**boxes(), iou_thresholds=[0.5])
    assert "sensitivity 1.000 at 0.000 false positives" in repr(curve)
    assert repr(matches) == "<Matches of 1 predicted and 1 true boxes: 1 found, by IoU threshold>"
    assert not _RAW.match(repr(metrics.Resamples(3)))


def test_a_difference_prints_value_interval_p_value_and_method():
    gap = auroc_difference()
    low, high = gap.ci_low, gap.ci_high
    line = f"{gap.estimate:.3f} (95 % CI {low:.3f} to {high:.3f}), p = {gap.p_value:.3f}"
    shown = repr(gap).replace("\N{MINUS SIGN}", "-")
    assert shown == f"{line}; DeLong 1988, images taken as independent"
    assert "patient" not in repr(gap) + gap._repr_html_()
    assert "Obuchowski 1997" in repr(auroc_difference(patients=np.arange(120) // 2))
    for text in (f"{gap.p_value:.3f}", "DeLong"):
        assert text in gap._repr_html_()


def test_difference_without_an_interval_gives_the_reason():
    gap = metrics.auroc_difference([0, 1], [0.1, 0.4], [0.3, 0.2])
    assert not gap.has_interval
    assert "fewer than two images of each class" in repr(gap)
