"""A classifier's training from other weights: what learns, what stays, and what the run says."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import densenet121

from cxr_compare.classification.loss import masked_cross_entropy, training_losses
from cxr_compare.classification.model import build_classifier
from cxr_compare.configs.load import find_config, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.descriptions import public_sets
from cxr_compare.networks.model_files import load_model
from cxr_compare.networks.public_checkpoints import CHEXNET_FINDINGS, XRAYVISION_FINDINGS
from cxr_compare.scripts import console
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.train import train
from cxr_compare.serving.trained_model import BUILDERS
from cxr_compare.training.datasets import ImageLabelDataset, collate_labels
from cxr_compare.training.image_data import ImageData
from cxr_compare.training.module import ClassifierModule, score_figures
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.weights import build_model
from tests.memory_store import ImageStore
from tests.scripts.small_sets import interrupted_after
from tests.stored_json import stored_json

_KEYS = ["data.image_size=64", "model.backbone=small_cnn", "training.epochs=3"]


def _train(data: Path, out: Path, *overrides: str) -> RunFolder:
    run_command(
        train, "chexnet_quickstart", data=data, out=out, set_=[*_KEYS, *overrides], device="cpu"
    )
    return RunFolder.open(out)


@pytest.fixture(scope="module")
def before(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run to start from, with the published normalisation of the colours."""
    out = tmp_path_factory.mktemp("runs") / "before"
    run = _train(data, out, "training.epochs=1", "training.optimiser=rmsprop")
    model = out / "model.json"
    text = json.dumps(stored_json(model)).replace('"channels": "same"', '"channels": "imagenet"')
    write_json(model, "model", json.loads(text))
    return run


def _changed(run: RunFolder, start: RunFolder) -> set[str]:
    old, new = (load_file(folder / "model.safetensors") for folder in (start.folder, run.folder))
    return {
        key.split(".")[1] if key.startswith("trunk.") else "head"
        for key, value in new.items()
        if not torch.equal(value, old[key]) and not key.endswith("num_batches_tracked")
    }  # which counts each training's own steps, and nothing reads


def test_a_head_learns_alone_on_the_features_of_a_run(data, before, tmp_path):
    run = _train(data, tmp_path / "run", f"model.weights={before.folder}", "model.trainable=head")
    assert _changed(run, before) == {"head"}  # no statistic of a batch norm either
    assert run.info.trainable_parameters == 257
    assert run.info.parameters == before.info.parameters > 100_000
    assert before.info.trainable_parameters == before.info.parameters
    rebuilt = load_model(run.folder, BUILDERS)
    assert rebuilt.architecture["arguments"]["channels"] == "imagenet"  # as its start had it


def _interrupted(data: Path, out: Path, after: int, *overrides: str) -> None:
    with interrupted_after(after):
        _train(data, out, *overrides)


def test_stages_learn_one_after_another_also_in_a_resumed_training(data, before, tmp_path):
    keys = (f"model.weights={before.folder}", "model.trainable=stages", "training.monitor=val_loss")
    whole = _train(data, tmp_path / "whole", *keys)
    last = RunFolder.open(tmp_path / "whole").last_checkpoint
    weights = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
    old = load_file(before.folder / "model.safetensors")
    moved = {
        key.split(".")[2]
        for key, value in weights.items()
        if ".trunk." in key
        and not key.endswith("num_batches_tracked")
        and not torch.equal(value, old[key.removeprefix("model.")])
    }
    assert moved == {"block5", "block4"}  # one more in epoch 2, another in epoch 3
    _interrupted(data, tmp_path / "halves", 2, *keys)
    halves = _train(data, tmp_path / "halves", *keys)
    assert _changed(whole, halves) == set()


_SOFT = (
    "training.positive_weight=3.0", "training.label_smoothing=0.1", "training.monitor=val_loss",
)  # fmt: skip


def test_loss_and_smoothing_reach_the_training_but_only_the_loss_validation(data):
    changes = [key for key in _SOFT if "monitor" not in key]
    settings = read_config(find_config("chexnet_quickstart"), [*_KEYS, *changes])
    images = ImageData(settings, DataSet.open(data), console)
    images.setup("fit")
    model, _ = build_model(settings, images.findings, console)
    module = ClassifierModule(model, settings.training)
    module.trainer = SimpleNamespace(datamodule=images)
    module.setup("fit")
    batch = images.collate([images.train[row] for row in range(8)])
    model.eval()
    logits = model(batch.images)
    losses, _ = module.validate(batch)
    weight = torch.tensor([3.0])
    plain = masked_cross_entropy(logits, batch.targets, weight)
    assert losses["classification"].item() == pytest.approx(plain.item())
    learned = module.losses(batch)["classification"]
    expected = masked_cross_entropy(logits, batch.targets * 0.9 + 0.05, weight)
    assert learned.item() == pytest.approx(expected.item())


def test_features_that_are_random_are_not_frozen(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights = 'none' makes them random"):
        _train(data, tmp_path / "run", "model.trainable=head")


def test_a_public_checkpoint_brings_its_preprocessing(data, tmp_path, capsys):
    network = densenet121(num_classes=18)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    state["features.conv0.weight"] = state["features.conv0.weight"][:, :1].contiguous()
    save_file(state, tmp_path / "xrv.safetensors")
    keys = [f"model.weights={tmp_path / 'xrv.safetensors'}", "model.backbone=densenet121"]
    run = _train(data, tmp_path / "run", *keys, "model.trainable=head", "training.epochs=1")
    said = capsys.readouterr().err
    assert "is of torchxrayvision, which learned at 224 px from the data set that its file" in said
    assert "takes the features of densenet121 and its last layer\n" in said
    arguments = load_model(run.folder, BUILDERS).architecture["arguments"]
    assert (arguments["mean"], arguments["std"]) == (0.5, 1 / 2048)


def test_public_checkpoints_call_findings_as_our_readers_do() -> None:
    assert set(CHEXNET_FINDINGS) == set(public_sets()["nih"].findings)
    assert set(CHEXNET_FINDINGS) < set(XRAYVISION_FINDINGS)
    assert "lung_opacity" in XRAYVISION_FINDINGS  # RSNA's


def test_fourteen_findings_are_learned_and_measured_where_they_are_known() -> None:
    """As NIH's labels with a second reading of some: unknown ones neither teach nor count."""
    rng = np.random.default_rng(0)
    table = rng.integers(0, 2, size=(6, 14)).astype(float)
    table[rng.random(table.shape) < 0.4] = np.nan
    table[:, 3] = np.nan  # never read
    images = {f"image{n}": np.full((64, 64), 40 * n, np.uint8) for n in range(6)}
    store = ImageStore(images, size=64)
    labels = pd.DataFrame(table, index=store.ids, columns=list(CHEXNET_FINDINGS))
    rows = ImageLabelDataset(store, store.ids, labels, CHEXNET_FINDINGS)  # type: ignore[arg-type]

    batch = collate_labels([rows[n] for n in range(6)])
    model = build_classifier("small_cnn", n_findings=14, image_size=64)
    training_losses(model, batch)["classification"].backward()
    gradient = model.classifier.weight.grad
    assert gradient is not None
    assert not gradient[3].any()
    assert all(gradient[k].any() for k in range(14) if not np.isnan(table[:, k]).all())
    scores = rng.random((6, 14))
    whole = score_figures(scores, batch.targets.numpy())
    spoiled = np.where(np.isnan(table), 1 - scores, scores)
    assert score_figures(spoiled, batch.targets.numpy()) == whole
