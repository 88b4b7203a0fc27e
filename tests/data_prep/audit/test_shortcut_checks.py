"""Problems that the audit reports of shortcuts."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.audit.shortcut_checks import check_shortcuts
from cxr_compare.evaluation.sources.shortcuts import measure_shortcuts


def image_table(n, **columns):
    ids = [str(number) for number in range(n)]
    return pd.DataFrame({"image_id": ids, "patient_id": ids, **columns})


def test_shortcuts_of_the_file_are_warnings_and_of_the_person_notes():
    n = 400
    positive = np.arange(n) % 2 == 0
    images = image_table(n, view=np.where(positive | (np.arange(n) % 5 == 0), "AP", "PA"))
    decode = images[["image_id"]].assign(bits=np.where(positive, 8, 12), mean_grey=100.0)
    labels = pd.DataFrame({"mass": positive.astype(float)}, index=images["image_id"])
    problems = check_shortcuts(measure_shortcuts(images, decode, labels))
    assert [(p.check, p.severity) for p in problems] == [
        ("shortcut_person", "info"),
        ("shortcut_file", "warning"),
        ("shortcut_together", "info"),
    ]
    for text in ("bits", "'mass'", "1.000"):
        assert text in problems[1].message


N = 400


def test_strong_border_is_reported_with_advice():
    row = {
        "target": "mass",
        "fact": "outer tenth of the image",
        "kind": "border",
        "auroc": 0.83,
        "ci_low": 0.8,
        "ci_high": 0.85,
        "n_images": N,
        "n_positive": 200,
        "n_known": N,
    }
    problem = check_shortcuts([row])[0]
    assert (problem.check, problem.severity) == ("shortcut_border", "info")
    assert "outer tenth of the image" in problem.message
    assert "'mass'" in problem.message
    assert problem.advice
