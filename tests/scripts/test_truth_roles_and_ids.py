"""`compare --truth`: roles, patients and ids that would give a wrong figure without a word."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError

N = 60
RNG = np.random.default_rng(0)
LABELS = pd.DataFrame(
    {
        "image_id": [f"{number:04d}" for number in range(N)],
        "label": RNG.integers(0, 2, N),
        "patient_id": [f"p{number}" for number in range(N)],
        "role": np.repeat(["val", "test"], N // 2),
    }
)
SCORES = np.clip(0.4 * LABELS.label + 0.6 * RNG.random(N), 0, 1)
BOXES = LABELS.loc[LABELS.label == 1, ["image_id"]].assign(x1=10, y1=10, x2=50, y2=60)
PREDICTED = LABELS[["image_id"]].assign(x1=12, y1=9, x2=52, y2=61, score=SCORES)


def compare(folder: Path, labels: pd.DataFrame, system: pd.DataFrame, **options: Any) -> Any:
    labels.to_csv(folder / "truth.csv", index=False)
    system.to_csv(folder / "A.csv", index=False)
    return cxr_compare.compare(
        {"A": folder / "A.csv"}, truth=folder / "truth.csv", replicates=100, **options
    )


def auroc(result: Any) -> float:
    return result.to_frame().set_index("metric").estimate["auroc"]


@pytest.mark.parametrize("first", ["val", "train", "Training"])
def test_only_test_images_are_evaluated(tmp_path, first):
    labels = LABELS.assign(role=np.repeat([first, "test"], N // 2))
    scores = LABELS[["image_id"]].assign(score=SCORES)
    expected = cxr_compare.metrics.auroc(LABELS.label[N // 2 :], SCORES[N // 2 :])
    assert auroc(compare(tmp_path, labels, scores)) == pytest.approx(expected, abs=1e-12)


def test_a_role_that_is_not_understood_is_refused(tmp_path):
    labels = LABELS.assign(role="Fold A")
    with pytest.raises(InputError, match=r"line 2: .*'Fold A'"):
        compare(tmp_path, labels, LABELS[["image_id"]].assign(score=SCORES))


def test_boxes_of_images_without_a_label_are_refused_with_the_near_id(tmp_path):
    labels = LABELS.drop(columns="role")
    BOXES.to_csv(tmp_path / "boxes.csv", index=False)
    result = compare(tmp_path, labels, PREDICTED, boxes=tmp_path / "boxes.csv")
    assert auroc(result) == pytest.approx(cxr_compare.metrics.auroc(LABELS.label, SCORES))
    as_numbers = BOXES.assign(image_id=BOXES.image_id.astype(int))  # as Excel saves them
    as_numbers.to_csv(tmp_path / "boxes.csv", index=False)
    first = BOXES.image_id.iloc[0]
    with pytest.raises(InputError, match=rf"boxes\.csv: {len(BOXES)} images .*'{first}'"):
        compare(tmp_path, labels, PREDICTED, boxes=tmp_path / "boxes.csv")


@pytest.mark.parametrize("as_file", [True, False])
def test_patients_in_two_roles_are_refused_unless_allowed_and_then_stated(tmp_path, as_file):
    labels = LABELS.assign(patient_id=[f"p{number % (N // 2)}" for number in range(N)])
    scores = LABELS[["image_id"]].assign(score=SCORES)

    def call(**options: Any) -> Any:
        if as_file:
            return compare(tmp_path, labels, scores, **options)
        return cxr_compare.compare({"A": scores}, truth=labels, replicates=100, **options)

    with pytest.raises(InputError, match=f"{N // 2} patients"):
        call()
    assert any(
        f"{N // 2} patients" in str(text) for text in call(allow_shared_patients=True).cautions
    )


def test_ids_of_dicom_objects_are_whole_ids(tmp_path):
    uids = [f"1.2.840.113.{number // 6}.{number % 6}" for number in range(N)]
    labels = LABELS.assign(image_id=uids, role="test")
    scores = pd.DataFrame({"image_id": uids, "score": SCORES})
    expected = cxr_compare.metrics.auroc(LABELS.label, SCORES)
    assert auroc(compare(tmp_path, labels, scores)) == pytest.approx(expected, abs=1e-12)
