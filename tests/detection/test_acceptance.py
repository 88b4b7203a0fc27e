"""A detector finds what is plainly there, before any figure of it is worth reading."""

import pytest

from cxr_compare.data_prep.synth import lesions
from cxr_compare.scripts.commands.train import train
from cxr_compare.training.run_folder import RunFolder
from tests.scripts.small_sets import drawn_images


@pytest.mark.long
def test_lesions_well_above_the_noise_are_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(lesions, "CONTRAST_TO_NOISE", (8.0, 18.0))
    drawn_images(tmp_path, 900, 128, [128], seed=1, prevalence=0.5)
    changes = ["training.epochs=14"]
    train(
        "retinanet_quickstart",
        data=tmp_path / "data",
        out=tmp_path / "run",
        set_=changes,
        device="cpu",
    )
    info = RunFolder.open(tmp_path / "run").info
    assert info.best_figures["ap50"] >= 0.95
