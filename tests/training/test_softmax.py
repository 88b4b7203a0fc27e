"""`training.loss=softmax`: classes of which each image has one, from folders to the page."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from sklearn.metrics import log_loss

import cxr_compare
from cxr_compare import InputError, Run
from tests.adapters.commands import cxr
from tests.adapters.server import listening
from tests.adapters.serving import heat_of
from tests.adapters.training import (
    exclusive_cross_entropy,
    masked_cross_entropy,
    positive_weights,
    probabilities,
)
from tests.trainings import contents, small

SIDE = 64
# Folder and name of a file, as COVID Radiography publishes them, and the class for people.
RADIOGRAPHY = {
    "Normal": "Normal",
    "COVID": "COVID-19",
    "Lung_Opacity": "Lung opacity",
    "Viral Pneumonia": "Viral pneumonia",
}
FINDINGS = ("covid_19", "lung_opacity", "viral_pneumonia")
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


def test_balanced_classes_count_alike():
    labels = np.repeat([[0, 0], [1, 0], [0, 1]], [30, 10, 5], axis=0).astype(np.float32)
    weight = positive_weights("balanced", labels, exclusive=True)
    assert weight.tolist() == [3.0, 6.0]
    assert positive_weights(2.0, labels, exclusive=True).tolist() == [2.0]


# --- data sets ------------------------------------------------------------------------------------


def test_classes_are_the_findings_and_the_images_without_one(data):
    target, names = data.classes()
    assert target.any_of == FINDINGS
    assert names == tuple(RADIOGRAPHY.values())


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


def test_images_without_a_name_of_their_own_are_no_finding(tmp_path):
    data = table(tmp_path, {})
    assert data.classes()[1] == ("No finding", "A", "B")


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


def test_an_image_of_another_finding_is_not_of_a_class_without_any(tmp_path):
    """Labels by which some of the images without a and b show c, and others nothing."""
    usual = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    rows = {number: usual[number % 3] for number in range(24)} | {3: (0, 0, 1), 9: (0, 0, 1)}
    targets = {"ab": ["a", "b"], "c": ["c"]}
    data = table(tmp_path, rows, ("a", "b", "c"), target=targets)
    with pytest.raises(InputError, match=r"'i03' has a absent, b absent, c present"):
        data.classes("ab")
    assert data.classes()[0].any_of == ("a", "b", "c")


def test_without_a_normal_class_another_is_the_reference(tmp_path):
    names = ("COVID", "Pneumonia", "Tuberculosis")
    draws = np.random.default_rng(8)
    for name in names:
        for number in range(10):
            draw(tmp_path / f"films/{name}/{name}{number}.png", 0, draws)
    data = cxr_compare.prepare(tmp_path / "films", tmp_path / "set", workers=0)
    assert "training.loss" not in str(data)
    with pytest.raises(InputError, match=r"'COVID0' .*--target"):
        data.classes()
    target = {"classes": ["pneumonia", "tuberculosis"]}
    data = cxr_compare.prepare(tmp_path / "films", tmp_path / "other", target=target, workers=0)
    assert data.classes("classes")[1] == ("Covid", "Pneumonia", "Tuberculosis")


def test_a_finding_that_joins_others_is_no_class(tmp_path):
    """Kermany's pneumonia is that of bacteria or of viruses, by the names of its files."""
    for number in range(12):
        kind = ("bacteria", "virus")[number % 2]
        name = f"PNEUMONIA/person{number}_{kind}_{number}.jpeg"
        draw(tmp_path / "films/train" / name, 0, np.random.default_rng(number))
        name = f"NORMAL/IM-{number:04d}-0001.jpeg"
        draw(tmp_path / "films/train" / name, 0, np.random.default_rng(100 + number))
    data = cxr_compare.prepare(tmp_path / "films", tmp_path / "set", workers=0)
    assert "pneumonia" in data.targets
    assert data.classes()[1] == ("Normal", "Bacterial pneumonia", "Viral pneumonia")


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


def test_a_policy_is_refused(run):
    with pytest.raises(InputError, match="policy: Softmax"):
        Run.open(run.folder, name="Softmax", policy="max_f1")


def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(run, data, tmp_path):
    class Stop(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 4:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        small(data.folder, tmp_path / "run", KEYS, callbacks=[Stop()])
    others = {**KEYS, "training.loss": "sigmoid", "data.target": "covid_19"}
    with pytest.raises(InputError, match="holds a training with other settings"):
        small(data.folder, tmp_path / "run", others)
    small(data.folder, tmp_path / "run", KEYS)
    assert contents(tmp_path / "run") == contents(run.folder)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_shows_a_bar_of_each_class(run, files, browser):
    with listening([run]) as address:
        tab = browser.page
        browser.complaints.clear()
        for title, path in files.items():
            tab.goto(address)
            tab.set_input_files("#file", str(path))
            tab.click("#analyze")
            tab.wait_for_selector("#figure:not([hidden])")
            assert tab.inner_text("#verdict") == f"{title} (Softmax)"
            shares = tab.locator(".card .fill").evaluate_all(
                "(bars) => bars.map((bar) => Number(bar.style.getPropertyValue('--value')))"
            )
            assert shares == pytest.approx(list(run.predict(path).classes.values()))
            assert sum(shares) == pytest.approx(1)
            shown = tab.locator(".card").inner_text()
            assert [name for name in RADIOGRAPHY.values() if name not in shown] == []
            assert (f"heat map of {title}" in shown) == (title != "Normal")
        assert browser.complaints == []
        tab.goto("about:blank")
