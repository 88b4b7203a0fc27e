"""A detector starts from a classifier or a detector, and what those have seen comes along."""

import re
import shlex
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models
from torchvision.models.detection import retinanet_resnet50_fpn_v2

from cxr_compare.configs.load import find_config, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.splits.stored_splits import SplitRule, add_splits
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.stored_predictions import read_eligible
from cxr_compare.networks.registry import NETWORKS, PackagedWeights
from cxr_compare.networks.weight_files import fetch_coco, fetch_imagenet
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.predict import predict
from cxr_compare.scripts.commands.train import train
from cxr_compare.training.callbacks import History
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedFrom
from cxr_compare.training.weights import StartWeights
from tests.stored_json import put_table

_DETECTOR = [
    "data.image_size=96", "training.epochs=1", "model.fpn_channels=16", "model.head_convs=1",
]  # fmt: skip
_CLASSIFIER = [
    "data.image_size=64", "training.epochs=1", "model.backbone=resnet18",
    "model.last_stride=16", "data.split=other",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(drawn_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(drawn_set, tmp_path_factory.mktemp("start") / "data")
    add_splits(DataSet.open(folder), "other", SplitRule(seed=8))
    return folder


@pytest.fixture(scope="module")
def classifier(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on another split, at another size and stride, of pixels normalised another way."""
    out = tmp_path_factory.mktemp("runs") / "chexnet"
    run_command(train, "chexnet_quickstart", data=data, out=out, set_=_CLASSIFIER, device="cpu")
    Preprocess(size=64, mean=0.3, std=0.2).write(out / "preprocess.json")
    return out


def _detector(data: Path, out: Path, weights: Path, *overrides: str) -> RunFolder:
    keys = [*_DETECTOR, f"model.weights={weights}", *overrides]
    run_command(train, "retinanet_quickstart", data=data, out=out, set_=keys, device="cpu")
    return RunFolder.open(out)


def _stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def _begun(data: Path, out: Path, weights: Path) -> RunFolder:
    """A detector's run that was stopped before its first epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_compare.training.train.fit", _stop)
        with pytest.raises(KeyboardInterrupt):
            _detector(data, out, weights)
    run = RunFolder.started_in(out)
    assert run
    return run


@pytest.fixture(scope="module")
def started(data: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A detector from the classifier's run, whose body does not learn."""
    out = tmp_path_factory.mktemp("runs") / "retinanet"
    return _detector(data, out, classifier, "model.trainable=head")


def test_detector_takes_the_features_of_a_classifier_run(started, classifier):
    source = load_file(classifier / "model.safetensors")
    state = load_file(started.folder / "model.safetensors")
    body = {k: v for k, v in state.items() if k.startswith("backbone.body.")}
    assert len(body) == sum(key.startswith("trunk.") for key in source)
    for name, value in body.items():
        if name.endswith("num_batches_tracked"):
            continue  # a counter that nothing reads
        assert torch.equal(value, source[name.replace("backbone.body", "trunk")]), name


def test_detector_normalises_pixels_as_the_run_that_it_started_from(started: RunFolder) -> None:
    preprocess = Preprocess.read(started.folder / "preprocess.json")
    assert (preprocess.mean, preprocess.std) == (0.3, 0.2)
    assert preprocess.size == 96  # this training's own


def test_run_says_what_it_started_from(started: RunFolder, classifier: Path) -> None:
    said = started.info.started_from
    assert said.weights == str(classifier)
    assert (said.model_kind, said.data_set.split) == ("classifier", "other")
    assert said.n_images == len(RunFolder.open(classifier).seen)


def test_what_the_classifier_saw_is_seen_by_the_detector(data, started, classifier):
    seen, before = started.seen, RunFolder.open(classifier).seen
    split = DataSet.open(data).split()
    own = split.loc[split["role"].isin(["train", "val"]), "image_id"]
    assert set(seen["image_id"]) == set(own) | set(before["image_id"])
    # What the classifier was fitted on stays so, though this training only validates on it.
    fitted = set(before.loc[before["role"] == "train", "image_id"])
    validates = set(split.loc[split["role"] == "val", "image_id"])
    assert fitted & validates
    roles = seen.set_index("image_id")["role"]
    assert set(roles[list(fitted & validates)]) == {"train"}


def test_detector_whose_start_saw_test_patients_is_not_compared(data, started, tmp_path):
    predict(started.folder, out=tmp_path / "predictions", data=data, device="cpu")
    dataset, system = DataSet.open(data), Predictions.open(tmp_path / "predictions")
    split = LabelledSplit(dataset, dataset.target())
    with pytest.raises(InputError, match=r"RetinaNet has seen \d+ patients of \d+ test images"):
        read_eligible({"RetinaNet": system}, split)


def test_test_images_that_trained_under_other_names_are_told_by_predict_and_not_compared(
    data, started, tmp_path, capsys
):
    run = Path(shutil.copytree(started.folder, tmp_path / "run"))
    names = {name: "old-" + started.seen[name] for name in ("image_id", "patient_id")}
    put_table(started.seen.assign(**names), run / "seen.parquet", "seen")
    predict(run, out=tmp_path / "predictions", data=data, device="cpu", progress=True)
    assert "test images in training under other ids" in capsys.readouterr().err
    dataset, system = DataSet.open(data), Predictions.open(tmp_path / "predictions")
    split = LabelledSplit(dataset, dataset.target())
    with pytest.raises(InputError, match=r"RetinaNet has seen .* under other ids \((.*) = old-"):
        read_eligible({"RetinaNet": system}, split)


def test_chain_of_runs_forgets_nothing_and_is_told_beforehand(data, started, tmp_path, capsys):
    weights = started.folder / "model.safetensors"  # a file in a run folder is that run
    run = _begun(data, tmp_path / "again", weights)
    assert set(run.seen["image_id"]) == set(started.seen["image_id"])
    assert run.started.started_from.started_from.model_kind == "classifier"
    said = capsys.readouterr().err
    assert f"{weights}: takes the detector\n" in said
    assert "validation figures will look better than they are" in said
    assert "cxr compare will refuse this run on this split" in said


def test_what_a_file_from_elsewhere_saw_is_unknown_and_recorded_so(data, classifier, tmp_path):
    file = tmp_path / "resnet.safetensors"
    state = load_file(classifier / "model.safetensors")
    save_file({k.replace("trunk.", "module."): v for k, v in state.items()}, file)
    run = _begun(data, tmp_path / "run", file)
    assert run.started.started_from == StartedFrom(weights=str(file), trained_on="unknown")
    assert set(run.seen["role"]) == {"train", "val"}


def test_ended_detector_is_left_as_it_is_though_its_start_is_gone(
    data, classifier, started, tmp_path
):
    away = classifier.rename(tmp_path / "elsewhere")
    try:  # ended before: nothing is read again
        _detector(data, started.folder, classifier, "model.trainable=head")
    finally:
        away.rename(classifier)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.mkdir(), "give a run folder"),
        (lambda folder: None, r"no such weights file"),
    ],
)
def test_folder_that_is_no_run_is_refused_and_nothing_is_left(data, tmp_path, make, message):
    make(tmp_path / "start")
    with pytest.raises(InputError, match=message):
        _detector(data, tmp_path / "run", tmp_path / "start")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_best_weights_of_a_training_that_diverged_start_another_with_all_that_it_saw(
    data, classifier, tmp_path, monkeypatch
):
    def explode(history: History, row: dict) -> None:
        if row["epoch"] == 2:
            raise InputError("the training has diverged")

    monkeypatch.setattr(History, "_require_finite", explode)
    first = tmp_path / "first"
    with pytest.raises(InputError, match="diverged"):
        _detector(data, first, classifier, "training.epochs=2")
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"not ended .*--set model.weights=\S+best-0001.safetens"):
        _detector(data, tmp_path / "run", first)  # a folder stands for its end
    _detector(data, tmp_path / "run", RunFolder(first).best_weights(1))

    run = RunFolder.open(tmp_path / "run")
    assert len(run.seen) > 0
    assert set(run.seen["image_id"]) == set(RunFolder(first).seen["image_id"])
    origin = run.info.started_from
    assert origin.model_kind == "detector"
    assert origin.started_from.model_kind == "classifier"
    preprocess = Preprocess.read(run.folder / "preprocess.json")
    assert (preprocess.mean, preprocess.std) == (0.3, 0.2)


def test_run_with_another_backbone_or_size_names_the_key(data, classifier, started, tmp_path):
    with pytest.raises(InputError, match=r"of resnet18, not of densenet121; set model.backbone"):
        _detector(data, tmp_path / "run", classifier, "model.backbone=densenet121")
    with pytest.raises(InputError, match=r"fpn_channels 16 instead of 32; set model.fpn_channels"):
        _detector(data, tmp_path / "run", started.folder, "model.fpn_channels=32")
    assert not (tmp_path / "run").exists()


def _seen(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "role"])


def _start(*seen: tuple[str, str, str]) -> StartWeights:
    """Weights of a run that saw some images; of a file from elsewhere where it saw none."""
    run: Any = SimpleNamespace(folder=Path("chexnet"), seen=_seen(*seen)) if seen else None
    return StartWeights("run", {}, run=run)


def test_seen_images_are_joined_by_image_and_patient() -> None:
    own = _seen(("1", "rsna:a", "train"), ("2", "rsna:b", "val"), ("3", "rsna:c", "val"))
    start = _start(
        ("2", "rsna:b", "train"),  # the same image, fitted on before
        ("1", "rsna:a", "val"),  # fitted on now
        ("3", "nih:z", "train"),  # another patient's image that has the same id
        ("4", "rsna:d", "val"),
    )
    assert start.merge_seen(own).to_numpy().tolist() == [
        ["1", "rsna:a", "train"],
        ["2", "rsna:b", "train"],
        ["3", "rsna:c", "val"],
        ["chexnet:3", "nih:z", "train"],
        ["4", "rsna:d", "val"],
    ]
    assert _start().merge_seen(own) is own


def test_overlap_is_told_only_where_there_is_one() -> None:
    own, test = _seen(("1", "a", "train"), ("2", "b", "val")), _seen(("9", "t", "test"))
    assert _start(("1", "a", "train"), ("2", "b", "val")).leak_warnings(own, test) == []
    assert _start().leak_warnings(own, test) == []
    lines = _start(("7", "b", "train"), ("8", "t", "val")).leak_warnings(own, test)
    assert "patients of 1 of the 1 validation images" in lines[0]
    assert "patients of 1 of the 1 test images" in lines[1]


def test_test_images_that_the_weights_saw_under_other_names_are_told_and_stay_known() -> None:
    own = _seen(("1", "a", "train")).assign(pixel_sha256="one", perceptual_hash=None)
    test = _seen(("9", "t", "test")).assign(pixel_sha256="nine", perceptual_hash=None)
    start = _start(("7", "b", "train"), ("8", "c", "val"))
    assert start.run is not None
    start.run.seen = start.run.seen.assign(pixel_sha256=["nine", "eight"], perceptual_hash=None)  # type: ignore[misc]
    (line,) = start.leak_warnings(own, test)
    assert line.startswith("run has seen 1 of 1 test image in training under other ids (9 = 7)")
    assert start.merge_seen(own)["pixel_sha256"].tolist() == ["one", "nine", "eight"]


@pytest.mark.parametrize("weights", ["none", "imagenet", "coco"])
def test_published_weights_are_left_to_the_builder(weights: str) -> None:
    assert StartWeights.open(weights) is None


@pytest.mark.parametrize(
    ("config", "network", "norm"),
    [("retinanet", "resnet50", "batch"), ("chexnet", "densenet121", None)],
)
def test_without_internet_every_way_on_is_said_and_leads_on(
    data, tmp_path, monkeypatch, config, network, norm
):
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.urlopen", fail)
    before = set(data.rglob("*"))
    with pytest.raises(InputError, match="cannot be fetched") as told:
        run_command(
            train, config, data=data, out=tmp_path / "run", device="cpu",
            set_=["training.batch_size=8"],  # the few training images fill a batch
        )  # fmt: skip
    assert set(data.rglob("*")) == before  # no pixels were decoded
    line = str(told.value)
    assert len(line.splitlines()) == 1

    url, place = re.search(r"put (https://\S+) at (\S+);", line).groups()
    assert Path(place).name == Path(url).name
    if config == "retinanet":
        file, fetch = retinanet_resnet50_fpn_v2(weights_backbone=None), partial(fetch_coco, "v2")
    else:
        file, fetch = models.get_model(network), partial(fetch_imagenet, network)
    torch.save(file.state_dict(), place)
    assert fetch().keys() == file.state_dict().keys()

    lite = read_config(find_config(re.search("cxr train (\\w+),", line)[1]))
    assert isinstance(NETWORKS[lite.model.backbone].weights, PackagedWeights)

    said = line.partition("random weights: ")[2]
    words = shlex.split(said[said.index("--set") :])
    assert words[::2] == ["--set"] * (len(words) // 2)
    random = read_config(find_config(config), words[1::2])
    assert random.model.weights == "none"
    assert random.training == read_config(find_config(config)).training
    assert getattr(random.model, "norm", None) == norm


def test_stages_that_stay_random_are_refused():
    with pytest.raises(InputError, match=r"trainable = 3 keeps .* = 'none' makes them rand"):
        read_config(find_config("retinanet"), ["model.weights=none", "model.norm=batch"])
