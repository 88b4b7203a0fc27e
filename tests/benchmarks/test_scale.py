"""The benchmark of scale works on what the commands take."""

import pandas as pd
import pytest

from benchmarks.scale import compare_once, prepare_once, write_scores, write_source

pytestmark = pytest.mark.release


def test_made_up_images_are_prepared_by_patient(tmp_path):
    write_source(tmp_path / "set", 60, seed=0)
    seconds, gib = prepare_once(tmp_path / "set")
    assert seconds > 0
    assert gib > 0
    images = pd.read_parquet(tmp_path / "set" / "data" / "images.parquet")
    assert (len(images), images["patient_id"].nunique()) == (60, 20)


def test_made_up_scores_are_compared(tmp_path):
    write_scores(tmp_path / "set", 240, seed=0)
    compare_once(tmp_path / "set")
    table = pd.read_csv(tmp_path / "set" / "report" / "figures.csv")
    auroc = table[(table["metric"] == "auroc") & table["second"].isna()].set_index("first")
    assert auroc.loc["A", "n_images"] == 240
    assert auroc.loc["A", "value"] > 0.7
