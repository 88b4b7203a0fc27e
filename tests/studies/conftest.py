"""Data sets, predictions and reports that the tests of evaluation make, for studies of them."""

from tests.evaluation.conftest import (
    evaluated_folder,
    evaluation_set,
    image_set,
    no_chart_files,
    predict,
    predicted_folder,
    target,
    test_set,
)

__all__ = [
    "evaluated_folder",
    "evaluation_set",
    "image_set",
    "no_chart_files",
    "predict",
    "predicted_folder",
    "target",
    "test_set",
]
