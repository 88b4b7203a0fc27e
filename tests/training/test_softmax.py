"""`training.loss=softmax`: classes of which each image has one, from folders to the page."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import log_loss

import cxr_compare
from cxr_compare import Run
from tests.adapters.commands import cxr
from tests.adapters.serving import heat_of
from tests.adapters.training import (
    exclusive_cross_entropy,
    masked_cross_entropy,
    positive_weights,
    probabilities,
)
from tests.trainings import small

SIDE = 64
# Folder and name of a file, as COVID Radiography publishes them, and the class for people.
RADIOGRAPHY = {
    "Normal": "Normal",
    "COVID": "Covid",
    "Lung_Opacity": "Lung opacity",
    "Viral Pneumonia": "Viral pneumonia",
}
FINDINGS = ("covid", "lung_opacity", "viral_pneumonia")
SPOTS = [(16, 16), (48, 16), (16, 48)]
"""Place of the bright spot of each class with a finding, x and y in px."""
KEYS = {
    "data.image_size": SIDE,
    "training.epochs": 10,
    "training.loss": "softmax",
    "training.monitor": "epoch",
    "training.positive_share": 0.0,
}


def draw(path, number, draws):
    """Write a slope of grey with a spot where the class of a number has it; the first has none."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = 60 + x * draws.uniform(0.4, 0.8) + y * draws.uniform(0.4, 0.8)
    if number:
        spot_x, spot_y = SPOTS[number - 1] + draws.integers(-3, 4, 2)
        image = image + 90 * np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / 60)
    image = image + draws.normal(0, 2, image.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 images of each of the four classes of COVID Radiography."""
    root = tmp_path_factory.mktemp("radiography")
    draws = np.random.default_rng(5)
    for number, name in enumerate(RADIOGRAPHY):
        for image in range(1, 25):
            draw(root / name / "images" / f"{name}-{image}.png", number, draws)
    return root


@pytest.fixture(scope="module")
def data(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "data"
    return cxr_compare.prepare(folder, out, size=SIDE, workers=0)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("softmax") / "run"
    small(data.folder, out, KEYS)
    return Run.open(out, name="Softmax", device="cpu")


@pytest.fixture(scope="module")
def export(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "export"
    cxr_compare.export(run.folder, out, format="onnx")
    return out


@pytest.fixture(scope="module")
def files(data, folder):
    """A test image of each class, by the name of the class for people."""
    tested = [data.image_file(name).path for name in data.image_ids("test")]
    return {
        title: next(path for path in tested if (folder / name) in path.parents)
        for name, title in RADIOGRAPHY.items()
    }


# --- probabilities and loss -----------------------------------------------------------------------


def labelled(n_findings, n_images=40, seed=0):
    """Logits, labels of one finding or of none, and the number of the class of each image."""
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n_images, n_findings, generator=draw)
    true = torch.randint(n_findings + 1, (n_images,), generator=draw)
    labels = torch.nn.functional.one_hot(true, n_findings + 1)[:, 1:].float()
    return logits.requires_grad_(), labels, true


@pytest.mark.parametrize("setting", [1.0, 2.5, "balanced"])
def test_with_one_finding_softmax_is_the_sigmoid(setting):
    logits, labels, _ = labelled(1)
    both = [positive_weights(setting, labels.numpy(), exclusive=each) for each in (True, False)]
    assert both[0] is both[1] is None or torch.equal(*both)
    found = probabilities(logits.double(), exclusive=True)
    torch.testing.assert_close(found, logits.double().sigmoid(), rtol=1e-14, atol=0)
    losses = [
        loss(logits, labels, both[0]) for loss in (exclusive_cross_entropy, masked_cross_entropy)
    ]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses))


@pytest.mark.parametrize("n_findings", [1, 2, 3, 7])
def test_probabilities_and_loss_are_those_of_torch_and_scikit_learn(n_findings):
    logits, labels, true = labelled(n_findings, seed=n_findings)
    with_zero = torch.cat([torch.zeros(len(logits), 1), logits], dim=1)
    expected = with_zero.softmax(dim=1)
    found = probabilities(logits, exclusive=True)
    torch.testing.assert_close(found, expected[:, 1:])
    loss = exclusive_cross_entropy(logits, labels)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(with_zero, true))
    every = expected.detach().double().numpy()
    every /= every.sum(axis=1, keepdims=True)
    assert loss.item() == pytest.approx(log_loss(true, every, labels=range(n_findings + 1)))
    weight = torch.arange(2.0, n_findings + 2)
    weights = torch.cat([torch.ones(1), weight])[true]
    each = torch.nn.functional.cross_entropy(with_zero, true, reduction="none")
    torch.testing.assert_close(
        exclusive_cross_entropy(logits, labels, weight), (weights * each).mean()
    )


# --- data sets ------------------------------------------------------------------------------------


def table(folder, rows, columns=("a", "b"), **options):
    """Prepare a table of findings of 24 images, of which some rows are given by image."""
    draws = np.random.default_rng(3)
    usual = [(0, 0), (1, 0), (0, 1)]
    lines = ["image,patient," + ",".join(columns)]
    for number in range(24):
        cells = rows.get(number, usual[number % 3])
        draw(folder / f"images/i{number:02d}.png", 0, draws)
        lines.append(f"i{number:02d}.png,p{number}," + ",".join(map(str, cells)))
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    return cxr_compare.prepare(
        folder / "labels.csv",
        folder / "images",
        folder / "set",
        columns={"finding": list(columns)},
        workers=0,
        **options,
    )


WRONG = {
    "two findings": ({7: (1, 1)}, "i07", ["a present", "b present"]),
    "an uncertain one": ({5: (-1, 0)}, "i05", ["a uncertain"]),
    "a finding beside an uncertain one": ({5: (-1, 1)}, "i05", ["a uncertain", "b present"]),
    "an unknown label": ({3: (0, "")}, "i03", ["a absent"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_image_that_is_not_of_one_class_is_named_with_what_to_do(name, tmp_path, capsys):
    rows, image, parts = WRONG[name]
    data = table(tmp_path, rows)
    assert "training.loss" not in str(data)
    words = ["train", "small_cnn", "--data", data.folder, "--out", tmp_path / "run"]
    capsys.readouterr()
    assert cxr(*words, "--set", "training.loss=softmax") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'{image}'" in line
    assert all(part in line for part in [*parts, "--exclude", "training.loss=sigmoid"]), line
    assert not (tmp_path / "run").exists()


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_keeps_its_classes_and_learns_them(run, data, files):
    record = json.loads((run.folder / "run.json").read_text())
    assert record["findings"] == list(FINDINGS)
    assert record["classes"] == list(RADIOGRAPHY.values())
    assert 'loss = "softmax"' in (run.folder / "config.toml").read_text()
    assert "Viral pneumonia" in str(run)
    for title, path in files.items():
        answer = run.predict(path)
        assert list(answer.classes) == list(RADIOGRAPHY.values())
        assert sum(answer.classes.values()) == pytest.approx(1, abs=1e-12)
        assert max(answer.classes, key=answer.classes.get) == title
        assert answer.decision is (title != "Normal")
        assert list(answer.findings.values()) == list(answer.classes.values())[1:]
        assert (answer.threshold, answer.probability) == (None, None)
        assert str(answer).split("  ")[2].startswith(title)


def test_predictions_of_a_set_are_columns_of_the_findings(run, data, files, tmp_path):
    made = cxr_compare.predict(run.folder, data=data.folder, out=tmp_path / "predictions")
    scores = made.scores.pivot(index="image_id", columns="finding", values="score")
    assert list(scores) == list(FINDINGS)
    assert (scores.sum(axis=1) <= 1 + 1e-12).all()
    for path in files.values():
        answer = run.predict(path)
        assert scores.loc[path.stem].to_dict() == pytest.approx(answer.findings, abs=1e-6)
        maps = made.maps[made.maps["image_id"] == path.stem].set_index("finding")
        drawn = heat_of(answer)
        if answer.decision:
            called = max(answer.findings, key=answer.findings.get)
            np.testing.assert_allclose(drawn.ravel(), maps.loc[called, "values"], atol=1e-5)


def test_a_table_of_answers_has_a_column_of_each_class(run, files, tmp_path):
    words = [run.folder, *files.values(), "--csv", tmp_path / "a.csv", "--out", tmp_path / "drawn"]
    assert cxr("predict", *words) == 0
    made = pd.read_csv(tmp_path / "a.csv").set_index("image")
    scores = made[list(RADIOGRAPHY.values())]
    assert scores.sum(axis=1).tolist() == pytest.approx([1.0] * len(files))
    for title, path in files.items():
        assert scores.loc[str(path)].idxmax() == title
    assert len(list((tmp_path / "drawn").glob("*.png"))) == len(files)


def test_an_export_answers_as_its_run(run, export, data, files):
    session = onnxruntime.InferenceSession(export / "model.onnx")
    squares = np.stack([data.store(SIDE).image(path.stem) for path in files.values()])[:, None]
    scores, _ = session.run(None, {"images": squares})
    np.testing.assert_allclose(scores, run.network(squares)[0], atol=1e-4)
    opened = Run.open(export)
    for path in files.values():
        expected, answer = run.predict(path).classes, opened.predict(path).classes
        assert answer == pytest.approx(expected, abs=2e-3)
        assert sum(answer.values()) == pytest.approx(1, abs=0.01)


# --- the page -------------------------------------------------------------------------------------
