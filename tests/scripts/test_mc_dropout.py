"""`cxr predict --mc-dropout`: the passes are part of the system, and their spread is stored."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from classification.model import build_classifier
from data_prep.augment.views import parse_views
from data_prep.contracts.errors import InputError
from data_prep.store.predictions import Predictions, PredictionWriter
from data_prep.store.preprocess import Placement, Preprocess
from detection.model import build_retinanet
from scripts.predict import predict
from serving.trained_model import TrainedModel

SIZE = 32
IDS = pd.Index([f"i{number}" for number in range(5)], name="image_id")
SIZES = pd.DataFrame({"image_id": IDS, "width": 64, "height": 64})


class Store:
    """Stands for a pixel store of 64 px originals."""

    size, ids = SIZE, IDS

    def image(self, image_id: str) -> np.ndarray:
        rng = np.random.default_rng(int(image_id[1:]))
        return rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)

    def placement(self, image_id: str) -> Placement:
        return Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=0.0)


def trained(folder: Path, model: Any, views: str = "") -> TrainedModel:
    for name in ("model.safetensors", "model.json", "preprocess.json"):
        (folder / name).write_bytes(b"{}")
    run: Any = SimpleNamespace(folder=folder, info={"findings": ["opacity"]})
    looks = {"views": parse_views(views)} if views else {}
    return TrainedModel(run, model.eval(), Preprocess(SIZE, 0.5, 0.25), "fp32", "cpu", **looks)


def test_the_spread_is_stored_and_the_passes_are_part_of_the_system(tmp_path: Path) -> None:
    plain = trained(tmp_path, build_classifier("resnet18", image_size=SIZE, dropout=0.5))
    several = plain.with_dropout(4)
    ids = {model.inference_id() for model in (plain, several, plain.with_dropout(5))}
    assert len(ids) == 3
    store: Any = Store()
    parts = list(several.predict(store, IDS, SIZES, 2))
    info = {"system": "A", "kind": "scores", "inference_id": several.inference_id(),
            "data_set": None}  # fmt: skip
    with PredictionWriter(tmp_path / "predictions", info) as writer:
        for part in parts:
            writer.add(part.images, **part.tables)
    scores = Predictions.open(tmp_path / "predictions").scores
    assert len(scores) == len(IDS)
    assert (scores["spread"] > 0).all()
    without = next(iter(plain.predict(store, IDS, SIZES, 5)))
    assert "spread" not in without.tables["scores"]


def test_what_cannot_be_thinned_is_refused(tmp_path: Path) -> None:
    nothing_dropped = trained(tmp_path, build_classifier("resnet18", image_size=SIZE))
    with pytest.raises(InputError, match="has no dropout"):
        nothing_dropped.with_dropout(4)
    dropping = build_classifier("resnet18", image_size=SIZE, dropout=0.5)
    with pytest.raises(InputError, match="leave out --tta"):
        trained(tmp_path, dropping, "flip").with_dropout(4)
    detector = build_retinanet(backbone="resnet18", image_size=64)
    with pytest.raises(InputError, match="is for classifiers"):
        trained(tmp_path, detector).with_dropout(4)


def test_one_pass_is_refused_before_any_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--mc-dropout 1: needs at least 2 passes"):
        predict(tmp_path / "none", out=tmp_path / "out", data=tmp_path / "none", mc_dropout=1)
