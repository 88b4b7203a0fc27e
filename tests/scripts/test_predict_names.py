"""`cxr predict --finding`: a model answers for what another data set calls otherwise."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.model import build_detector
from cxr_compare.scripts import console
from cxr_compare.scripts.commands.predict import parse_finding_names
from cxr_compare.serving.predict_folder import predict_data_set
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_info import RunInfo
from tests.memory_store import MemoryStore
from tests.plain_info import data_set_info

LEARNT = ["pneumonia", "mass"]
IDS = pd.Index(["a", "b"], name="image_id")


def trained(folder: Path, model: Any) -> TrainedModel:
    run: Any = SimpleNamespace(folder=folder, info=RunInfo(name="run", findings=LEARNT))
    return TrainedModel(run, model.eval(), Preprocess(size=64, mean=0.5, std=0.25), "fp32", "cpu")


def predicted(model: TrainedModel) -> dict[str, pd.DataFrame]:
    store: Any = MemoryStore(dict.fromkeys(IDS, (64, 64)))
    sizes = pd.DataFrame({"image_id": IDS, "width": 64, "height": 64})
    return dict(next(iter(model.predict(store, IDS, sizes, 2))).tables)


def test_a_classifier_answers_for_the_named_finding_alone(tmp_path):
    model = trained(tmp_path, build_classifier("resnet18", n_findings=2, image_size=64))
    named = model.with_names({"mass": "nodule"})
    assert named.findings == ("nodule",)
    everything, only = predicted(model), predicted(named)
    for name in ("scores", "maps"):
        expected = everything[name][everything[name]["finding"] == "mass"].assign(finding="nodule")
        pd.testing.assert_frame_equal(only[name], expected)
        assert len(expected) == len(IDS)


def test_a_detector_s_boxes_take_the_name_too(tmp_path):
    model = trained(
        tmp_path, build_detector("retinanet", backbone="resnet18", n_findings=2, image_size=64)
    )
    everything = predicted(model)["boxes"]
    only = predicted(model.with_names({"pneumonia": "mass"}))["boxes"]  # a name it learnt, too
    assert set(everything["finding"]) == set(LEARNT)
    assert len(only) == (everything["finding"] == "pneumonia").sum()
    assert set(only["finding"]) == {"mass"}


def test_what_it_did_not_learn_and_one_name_for_two_are_refused(tmp_path):
    model = trained(tmp_path, build_classifier("resnet18", n_findings=2, image_size=64))
    with pytest.raises(InputError, match=r"--finding oedema: .* pneumonia, mass$"):
        model.with_names({"oedema": "opacity"})
    with pytest.raises(InputError, match=r"--finding: .*'opacity'"):
        model.with_names({"pneumonia": "opacity", "mass": "opacity"})


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["=opacity"], "'=opacity'"),
        (["pneumonia="], "'pneumonia='"),
        (["mass=nodule", "mass=opacity"], "'mass=opacity': .*'nodule'"),  # two for one finding
    ],
)
def test_half_a_name_and_two_names_are_refused(texts, named):
    with pytest.raises(InputError, match=f"--finding {named}"):
        parse_finding_names(texts)


def test_other_names_are_another_system_to_a_folder_begun_before(tmp_path):
    model = trained(tmp_path, build_classifier("resnet18", n_findings=2, image_size=64))
    for name in ("model.safetensors", "model.json", "preprocess.json"):
        (tmp_path / name).write_bytes(b"{}")
    names: list[dict[str, str]] = [{"mass": "mass"}, {"mass": "nodule"}, {"pneumonia": "nodule"}]
    ids = {model.inference_id(), *(model.with_names(naming).inference_id() for naming in names)}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("named", "has", "advice"),
    [
        (None, ["effusion", "lung_opacity"], "'cxr predict --finding pneumonia=NAME'"),
        (None, ["effusion", "mass"], "'cxr predict --finding mass' "),
        ({"pneumonia": "opacity"}, ["lung_opacity"], "'cxr predict --finding pneumonia=NAME'"),
        ({"pneumonia": "a", "mass": "b"}, ["a"], "'cxr predict --finding pneumonia=a' leaves"),
        (None, [], "'pneumonia'.* no labels$"),
    ],
)
def test_refusal_of_an_unknown_name_gives_the_option_to_use(tmp_path, named, has, advice):
    model = trained(tmp_path, build_classifier("resnet18", n_findings=2, image_size=64))
    model = model if named is None else model.with_names(named)
    dataset = DataSet(tmp_path / "set", data_set_info())
    dataset.findings = pd.DataFrame({"finding": has}, dtype=TEXT)
    with pytest.raises(InputError, match=advice):
        predict_data_set(model, dataset, tmp_path / "out", "default", console, batch_size=2)
