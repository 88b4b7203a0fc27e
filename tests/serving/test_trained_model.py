"""`cxr predict --maps`: the method is part of the system, its maps lie in the original."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxr_compare.classification.activation_maps import MapMethod
from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.store.views import View
from cxr_compare.serving import trained_model as run_model
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_info import RunInfo
from tests.memory_store import MemoryStore

SIZE = 32
IDS = pd.Index([f"i{number}" for number in range(20)], name="image_id")
METHODS = get_args(MapMethod)


STORE = MemoryStore(dict.fromkeys(IDS, (64, 64)), SIZE, brightness=256)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    for name in ("model.safetensors", "model.json", "preprocess.json"):
        (tmp_path / name).write_bytes(b"{}")
    info = RunInfo(name="run", findings=["opacity"])
    return SimpleNamespace(folder=tmp_path, info=info, require_weights=lambda: None)


@pytest.fixture
def classifier() -> nn.Module:
    """Two small layers in place of a real trunk."""
    model = build_classifier("resnet18", image_size=SIZE)
    model.trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=8, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, stride=4, padding=1),
    )
    model.classifier = nn.Linear(6, 1)
    return model.eval()


def opened(run: Any, model: nn.Module, maps: MapMethod) -> TrainedModel:
    return TrainedModel(
        run, model, Preprocess(size=SIZE, mean=0.5, std=0.25), "fp32", "cpu", maps=maps
    )


def test_the_method_is_part_of_the_identity_and_the_usual_one_changes_nothing(run, classifier):
    ids = {method: opened(run, classifier, method).inference_id() for method in METHODS}
    assert len(set(ids.values())) == len(METHODS)
    plain = TrainedModel(run, classifier, Preprocess(size=SIZE, mean=0.5, std=0.25), "fp32", "cpu")
    assert plain.inference_id() == ids["cam"]


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_every_method_are_named_and_lie_in_the_original(run, classifier, method):
    sizes = pd.DataFrame({"image_id": IDS, "width": 64, "height": 64})
    (part,) = opened(run, classifier, method).predict(STORE, IDS[:3], sizes, batch_size=4)
    (usual,) = opened(run, classifier, "cam").predict(STORE, IDS[:3], sizes, batch_size=4)
    pd.testing.assert_frame_equal(part.tables["scores"], usual.tables["scores"])
    maps = part.tables["maps"]
    assert set(maps["method"]) == {method}
    assert [len(values) for values in maps["values"]] == list(maps["grid_h"] * maps["grid_w"])


@pytest.mark.parametrize(
    ("views", "detector", "message"),
    [
        ((View(), View(flip=True)), False, "--tta .*boxes"),
        ((View(),), True, "detector .*--maps gradcam$"),
    ],
)
def test_maps_that_cannot_be_made_are_refused(
    run, classifier, monkeypatch, views, detector, message
):
    monkeypatch.setattr(run_model.RunFolder, "open", lambda _: run)
    model = nn.Identity() if detector else classifier
    monkeypatch.setattr(run_model, "load_model", lambda *_: model)
    with pytest.raises(InputError, match=message):
        TrainedModel.open(run.folder, views=views, maps="gradcam" if detector else "cam")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scores_as_the_processor_does(run, classifier):
    sizes = pd.DataFrame({"image_id": IDS, "width": 64, "height": 64})
    on_cpu = opened(run, classifier, "cam")
    expected = pd.concat(p.tables["scores"] for p in on_cpu.predict(STORE, IDS, sizes, 8))
    moved = copy.deepcopy(classifier).to("cuda")
    on_gpu = replace(on_cpu, model=moved, device="cuda")
    actual = pd.concat(p.tables["scores"] for p in on_gpu.predict(STORE, IDS, sizes, 8))
    np.testing.assert_allclose(actual["score"], expected["score"], atol=1e-3)
