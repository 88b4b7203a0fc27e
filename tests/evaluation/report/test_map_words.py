"""The report says how maps were made and whether they depend on what was learned."""

import pytest

from evaluation.report.facts import map_checks


def said(spearman, absolute, method="gradcam"):
    stages = [
        {"share": 0.0, "spearman": 0.9, "spearman_abs": 0.9, "n_maps": 48},
        {"share": 1.0, "spearman": spearman, "spearman_abs": absolute, "n_maps": 48},
    ]
    sanity = {"n_images": 16, "draws": 3, "mode": "cascading", "stages": stages}
    return {"A": {"maps": {"method": method, "sanity": sanity}}, "B": {}}


@pytest.mark.parametrize(
    ("spearman", "absolute", "words"),
    [
        (0.04, 0.21, "0.04 on average, 0.21 in absolute value"),
        (-0.1, 0.3, "they depend on what was learned"),
        (0.1, 0.8, "trust them little"),  # a map turned over is the same map
        (0.93, 0.93, "trust them little"),
        (None, None, "no order left"),
    ],
)
def test_the_last_stage_decides(spearman, absolute, words):
    (line,) = map_checks(said(spearman, absolute))
    assert line.startswith("Maps of A are Grad-CAM.")
    assert words in line
    assert "0.9 " not in line.replace("0.93", "")


def test_a_check_that_was_not_made_is_told():
    (line,) = map_checks({"A": {"maps": {"method": "cam"}}})
    assert "was not checked" in line


def test_a_system_that_says_nothing_of_maps_has_no_line():
    assert map_checks({"A": {"maps": None}, "B": {}}) == []
