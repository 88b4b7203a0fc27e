"""The AUROC of a run against chance, and the images that trained it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare import metrics
from cxr_compare.data_prep.duplicates.seen_images import SeenImage
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.serving.known_limits import (
    MeasuredAuroc,
    TrainingImages,
    seen_summary,
    validation_auroc,
)
from cxr_compare.training.run_info import RunInfo, StartedFrom
from tests.data_prep.duplicates.image_set import ImageSet
from tests.small_dicom import chest
from tests.stored_json import bind_tables, put_table


def run_with_scores(folder: Path, signal: float) -> pd.DataFrame:
    """Write the evaluated validation images of a run: 80 images of 40 patients."""
    rng = np.random.default_rng(3)
    label = np.arange(80) % 2
    table = pd.DataFrame(
        {
            "image_id": [f"i{number:02d}" for number in range(80)],
            "system": "A",
            "label": label.astype(float),
            "score": 1 / (1 + np.exp(-rng.normal(signal * label, 1))),
            "probability": np.nan,
            "patient_id": [f"p{number // 2}" for number in range(80)],
        }
    )
    (folder / "validation").mkdir(parents=True)
    record = PredictionsInfo(system="A", kind="scores")
    record.write(folder / "validation" / "predictions.json")
    put_table(table, folder / "validation/evaluated.parquet", "decisions")
    return table


@pytest.mark.parametrize(("signal", "better"), [(0.0, False), (2.0, True)])
def test_only_a_run_whose_interval_includes_a_half_gets_a_caution(tmp_path, signal, better):
    table = run_with_scores(tmp_path, signal)
    measured = validation_auroc(tmp_path)
    expected = metrics.estimate(
        "auroc", table["label"], table["score"], patients=table["patient_id"]
    )
    assert measured is not None
    assert measured.estimate == pytest.approx(expected.estimate)
    assert (measured.ci_low, measured.ci_high) == pytest.approx((expected.ci_low, expected.ci_high))
    assert measured.n_images == 80
    assert measured.better_than_chance == better == (expected.ci_low > 0.5)
    caution = measured.caution("CheXNet")
    assert (caution is None) == better
    if caution:
        low, high = expected.ci_low, expected.ci_high
        assert f"AUROC {expected.estimate:.2f} (95 % interval {low:.2f} to {high:.2f})" in caution
        assert "80 validation images" in caution


def test_an_auroc_without_an_interval_is_not_shown_to_be_better_than_chance():
    measured = MeasuredAuroc(1.0, None, None, "test", 2)
    assert not measured.better_than_chance
    assert "no interval" in str(measured.caution("A"))


def test_a_run_without_evaluated_images_or_of_one_class_has_no_auroc(tmp_path):
    assert validation_auroc(tmp_path / "none") is None
    table = run_with_scores(tmp_path, 1.0)
    put_table(table.assign(label=1.0), tmp_path / "validation/evaluated.parquet", "decisions")
    assert validation_auroc(tmp_path) is None


def test_an_auroc_is_stored_by_its_attributes():
    measured = MeasuredAuroc(0.6, 0.4, 0.8, "validation", 10)
    assert MeasuredAuroc(**asdict(measured)) == measured


def test_training_images_of_a_run_are_found_and_other_images_are_new(tmp_path):
    seen = ImageSet(a=chest(1), b=chest(2)).decode[["image_id", "pixel_sha256", "perceptual_hash"]]
    seen = seen.assign(role=["train", "val"], patient_id=["p", "q"])
    put_table(seen, tmp_path / "seen.parquet", "seen")
    info = RunInfo(name="A")
    info.write(tmp_path / "run.json")
    bind_tables(tmp_path)
    images = TrainingImages.of_run(tmp_path, info)
    states = [
        images.state(images.find(DecodedImage(pixels, {})))
        for pixels in (chest(1), chest(1) // 2 + 30, chest(2), chest(5))
    ]
    assert states == ["train", "train", "val", "no"]


def test_use_of_an_image_is_unknown_where_the_training_images_are_not_all_known(tmp_path):
    without_table = TrainingImages.of_run(tmp_path, RunInfo(name="A"))
    assert without_table.state(without_table.find(DecodedImage(chest(1), {}))) == "unknown"
    seen = ImageSet(a=chest(1)).decode[["image_id", "pixel_sha256", "perceptual_hash"]]
    put_table(seen.assign(role="train", patient_id="p"), tmp_path / "seen.parquet", "seen")
    start = StartedFrom(weights="other.pth", trained_on="unknown")
    info = RunInfo(name="A", started_from=start)
    info.write(tmp_path / "run.json")
    bind_tables(tmp_path)
    images = TrainingImages.of_run(tmp_path, info)
    assert images.state(images.find(DecodedImage(chest(1), {}))) == "train"
    assert images.state(images.find(DecodedImage(chest(2), {}))) == "unknown"


def test_the_summary_counts_training_images_and_their_near_copies():
    assert seen_summary("A", 10, 0, 0, 0) is None
    assert "91 of 140 images trained A (6 of them" in str(seen_summary("A", 140, 85, 6, 0))
    assert "3 of 5 images" in str(seen_summary("A", 5, 0, 0, 3))
    assert SeenImage("train", is_near=True).role == "train"
