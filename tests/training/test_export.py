"""`export`: a network that answers as its run without PyTorch, or no file; labels as COCO, YOLO."""

import json
import shutil
import subprocess

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from torch import nn

import cxr_compare
from cxr_compare import InputError, Run
from tests.adapters import networks, serving
from tests.adapters.folders import reseal

KINDS = ("detector", "classifier")
QUICK = ["classifier", pytest.param("detector", marks=pytest.mark.release)]
EDGES = ["x1", "y1", "x2", "y2"]


@pytest.fixture(scope="module")
def films(world):
    return sorted((world.xrays / "stage_2_test_images").glob("*.dcm"))[:3]


@pytest.fixture(scope="module")
def data(world):
    return cxr_compare.DataSet.open(world.data)


@pytest.mark.parametrize("kind", QUICK)
def test_other_outputs_than_the_runs_leave_no_file(world, tmp_path, kind):
    with serving.exported_otherwise(0.01):
        with pytest.raises(InputError, match="not kept"):
            cxr_compare.export(world.run(kind), tmp_path / "export", format="onnx")
        with pytest.raises(InputError, match="not kept"), serving.exported_otherwise(np.nan):
            cxr_compare.export(world.run(kind), tmp_path / "export", format="onnx")
    assert list(tmp_path.iterdir()) == []


CORNER = np.arange(20.0)[:, None] * [10, 10]
BOXES = np.column_stack([CORNER, CORNER + 40, np.linspace(0.9, 0.1, 20), np.ones(20)])
FAINT = np.array([[0, 0, 9, 9, 0.01, 1]])
MAPS = np.zeros((1, 1, 3, 3))


def shifted(*by):
    return BOXES + np.array(by)


@pytest.mark.parametrize(
    ("expected", "got", "is_same"),
    [
        ([BOXES], [shifted(0.5, 0, 0.5, 0, 0, 0)], True),
        ([BOXES], [shifted(0, 0, 0, 0, 0.01, 0)], False),
        ([BOXES], [shifted(200, 0, 200, 0, 0, 0)], False),
        ([BOXES], [np.vstack([BOXES, FAINT])], True),
        ([BOXES], [BOXES[:18]], False),
        ([BOXES], [BOXES * np.nan], False),
        ((np.array([0.5]), MAPS), (np.array([0.5]), MAPS + 1e-4), True),
        ((np.array([0.5]), MAPS), (np.array([0.5]), MAPS + 0.01), False),
        ((np.array([0.5]), MAPS), (np.array([0.51]), MAPS), False),
    ],
)
def test_an_export_is_kept_by_its_scores_its_boxes_and_its_maps(expected, got, is_same):
    if is_same:
        assert serving.proved(expected, got).startswith("Answers as its run")
        return
    with pytest.raises(InputError, match="not kept"):
        serving.proved(expected, got)


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_computes_alone_and_says_what_it_takes(world, data, kind):
    path = world.export(kind) / "model.onnx"
    network = onnx.load(path)
    facts = {entry.key: json.loads(entry.value) for entry in network.metadata_props}
    assert facts["findings"] == list(data.target().any_of)
    assert facts["size"] == 96
    assert "uint8" in facts["input"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = data.image_ids("test")[0]
    image = data.store(96).image(name)[None, None]
    outputs = dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {"images": image}),
            strict=True,
        )
    )
    stored = cxr_compare.Predictions.open(world.predictions(kind))
    if kind == "classifier":
        (score,) = stored.scores.loc[stored.scores["image_id"] == name, "score"]
        assert outputs["scores"].item() == pytest.approx(score, abs=1e-4)
    else:
        of_image = stored.boxes[stored.boxes["image_id"] == name]
        assert np.sort(outputs["scores"])[::-1] == pytest.approx(
            of_image["score"].sort_values(ascending=False).to_numpy(), abs=1e-4
        )
        assert outputs["boxes"].shape == (len(of_image), 4)


SIDE, CELL = 96, 8
DIM, BRIGHT = range(136, 190), range(200, 256)


def spot_detector():
    """A detector with one box of its first finding on each spot, of its second on bright ones.

    The centre of each kernel carries the brightness from the pixels to the cells of 8 px. Each spot
    has nine candidates around it, of which suppression leaves the highest.
    """
    anchors = {"anchor_sizes": [16.0, 24, 48, 96, 192], "anchor_ratios": (1.0, 1.01, 1.02)}
    small = {"norm": "batch", "head": "v1", "fpn_channels": 8, "head_convs": 1}
    model = networks.detector("resnet18", SIDE, n_findings=2, **small, **anchors)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()
        layers = dict(model.named_modules())
        for name in (
            "backbone.body.conv1",
            "backbone.body.layer2.0.downsample.0",
            "backbone.fpn.inner_blocks.0.0",
            "backbone.fpn.layer_blocks.0.0",
            "head.classification_head.conv.0.0",
        ):
            weight = layers[name].weight
            weight[0, 0, weight.shape[2] // 2, weight.shape[3] // 2] = 1
        logits = layers["head.classification_head.cls_logits"]
        weight, bias = logits.weight.view(9, 3, 8, 3, 3), logits.bias.view(9, 3)
        weight[:, 1:, 0, 1, 1] = 8  # a brightness of 0 to 2.4
        bias[:, 1], bias[:, 2] = -9.1, -18.1
        bias[1, 1:] += 0.1  # the middle one of three sizes, which overlaps with both others
    return model


def spots(count, seed):
    """A black square with spots of different brightness, and the numbers of all and bright ones."""
    draw = np.random.default_rng(seed)
    values = draw.permutation([*DIM, *BRIGHT])[:count]
    square = np.zeros((1, SIDE, SIDE), np.uint8)
    for value, cell in zip(values, draw.permutation(11 * 11), strict=False):
        row, column = CELL * (1 + cell // 11), CELL * (1 + cell % 11)
        square[0, row : row + 3, column : column + 3] = value
    return square, [min(count, 100), int((values >= BRIGHT.start).sum())]


def test_an_export_has_the_boxes_of_its_run_for_any_number_of_them(world, tmp_path):
    run = networks.run_with(
        world.run("detector"), spot_detector(), tmp_path / "run", ["mass", "nodule"]
    )
    export = tmp_path / "export"
    cxr_compare.export(run, export, format="onnx")
    drawn = [spots(count, seed) for seed, count in enumerate([110, 0, 5, 99] * 2)]
    squares = np.stack([square for square, _ in drawn])
    expected = networks.open_network(run, "cpu")(squares)
    for rows, (_, numbers) in zip(expected, drawn, strict=True):
        assert [(rows[:, 5] == label).sum() for label in (1, 2)] == numbers
    session = onnxruntime.InferenceSession(export / "model.onnx")
    for square, rows in zip(squares, expected, strict=True):
        found = np.column_stack(session.run(None, {"images": square[None]}))
        np.testing.assert_allclose(found, rows, rtol=0, atol=1e-4)
    for rows, others in zip(expected, networks.open_network(export)(squares), strict=True):
        np.testing.assert_allclose(others, rows, rtol=0, atol=1e-4)


def test_it_answers_without_pytorch_and_network_as_its_run_does(world, films, tmp_path):
    table, drawn, home = (tmp_path / name for name in ("table.csv", "drawn", "home"))
    home.mkdir()
    exports, runs = (
        [f"{kind}={folder(kind)}" for kind in KINDS] for folder in (world.export, world.run)
    )
    words = ("predict", *exports, *films, "--json", "--csv", table, "--out", drawn)
    status, out, err = serving.without_torch(*words, home=home)
    assert status == 0, err
    expected = cxr_compare.predict(*runs, *films, device="cpu")
    for answer, of_run in zip(json.loads(out), expected, strict=True):
        assert (answer["image"], answer["system"]) == (of_run.image, of_run.system)
        assert answer["score"] == pytest.approx(of_run.score, abs=2e-3)
        assert answer["threshold"] == pytest.approx(of_run.threshold)
        clear = abs(of_run.score - of_run.threshold) > 2e-3
        assert not clear or answer["decision"] == of_run.to_json()["decision"]
        assert answer["seen_in_training"] == "unknown"
        assert answer["cautions"][:1] == of_run.cautions[:1]
        boxes = pd.DataFrame(answer["boxes"], columns=[*EDGES, "score"], dtype=float)
        for some, others in ((boxes, of_run.boxes), (of_run.boxes, boxes)):
            sure = some.loc[some["score"] > of_run.threshold + 2e-3, EDGES].to_numpy()
            apart = abs(sure[:, None] - others[EDGES].to_numpy()).max(axis=2)
            assert (apart.min(axis=1, initial=np.inf) < 0.5).all()
    assert len(list(drawn.glob("*.png"))) == len(films)
    assert len(table.read_text().splitlines()) == 1 + 2 * len(films)
    assert not [path for path in home.rglob("*") if path.is_file()]  # no id for somebody's count


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        ("classifier", "youden"),
        ("classifier", "sensitivity>=0.8"),
        ("classifier", "specificity>=0.9"),
        ("detector", "sensitivity>=0.8"),
    ],
)
def test_it_decides_by_any_policy_with_the_threshold_of_its_run(world, kind, policy):
    of_run, exported = (
        Run.open(folder, policy=policy, device="cpu").point
        for folder in (world.run(kind), world.export(kind))
    )
    assert exported.threshold == of_run.threshold
    assert exported.probability(exported.threshold) == of_run.probability(of_run.threshold)


def files_with(names, folder, listed):
    """Files that hold one of some names; grep looks for all at once."""
    listed.write_text("".join(f"{name}\n" for name in names))
    found = subprocess.run(
        ["grep", "-raFl", "-f", listed, folder], capture_output=True, text=True, check=False
    )
    assert found.stderr == ""
    return found.stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_no_id_of_an_image_or_a_patient(world, data, tmp_path, kind):
    images = data.images
    seen = {*images["image_id"], *images["patient_id"], *images["path"].dropna()}
    assert str(world.run(kind) / "seen.parquet") in files_with(
        seen, world.run(kind), tmp_path / "names"
    )
    assert files_with(seen, world.export(kind), tmp_path / "names") == []
    decision = json.loads((world.export(kind) / "decision.json").read_text())
    count = len(decision["scores"])
    assert count == len(decision["positive"]) == len(decision["patients"]) > 0
    assert set(decision["patients"]) == set(range(max(decision["patients"]) + 1))


@pytest.mark.parametrize("damage", ["gone", "cut"])
@pytest.mark.parametrize("name", ["model.onnx", "export.json", "preprocess.json", "decision.json"])
def test_a_damaged_export_is_one_line_that_names_the_file(world, films, tmp_path, name, damage):
    folder = shutil.copytree(world.export("classifier"), tmp_path / "export")
    if damage == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    else:
        (folder / name).unlink()
    with pytest.raises(InputError, match=name if damage == "cut" else "export") as refused:
        cxr_compare.predict(folder, films[0])
    assert "\n" not in str(refused.value)


def test_an_export_with_other_preprocessing_is_refused(world, films, tmp_path):
    path = shutil.copytree(world.export("classifier"), tmp_path / "export") / "preprocess.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    reseal(path, {**stored, "size": 2 * stored["size"]})
    with pytest.raises(InputError, match=r"preprocess\.json"):
        cxr_compare.predict(path.parent, films[0])
