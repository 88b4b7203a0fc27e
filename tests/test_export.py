"""`export`: a network that answers as its run without PyTorch, or no file; labels as COCO, YOLO."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError, Run
from tests.adapters import serving
from tests.adapters.commands import cxr

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


@pytest.mark.parametrize("kind", QUICK)
def test_a_network_for_which_bf16_is_too_coarse_answers_in_fp32(world, tmp_path, kind):
    with serving.exported_otherwise(0.05, "bf16"):
        cxr_compare.export(world.run(kind), tmp_path / "export", format="onnx")
        opened = Run.open(tmp_path / "export")
    assert opened.network.precision == "fp32"


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
        assert answer["score"] == pytest.approx(of_run.score, abs=2e-3)  # OpenVINO computes in bf16
        assert answer["threshold"] == pytest.approx(of_run.threshold)
        clear = abs(of_run.score - of_run.threshold) > 2e-3
        assert not clear or answer["decision"] == of_run.to_json()["decision"]
        assert answer["seen_in_training"] == "unknown"
        assert answer["cautions"][:1] == of_run.cautions[:1]
        boxes = pd.DataFrame(answer["boxes"], columns=EDGES, dtype=float)
        np.testing.assert_allclose(boxes, of_run.boxes[EDGES], atol=0.5)
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
    assert exported.probability == of_run.probability


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_no_id_of_an_image_or_a_patient(world, data, kind):
    images = data.images
    seen = {*images["image_id"], *images["patient_id"], *images["path"].dropna()}
    stored = (world.run(kind) / "seen.parquet").read_bytes()
    assert any(name.encode() in stored for name in seen)  # a run does
    for path in world.export(kind).rglob("*"):
        content = path.read_bytes()
        assert not [name for name in seen if name.encode() in content], path.name
    decision = json.loads((world.export(kind) / "decision.json").read_text())
    count = len(decision["scores"])
    assert count == len(decision["positive"]) == len(decision["patients"]) > 0
    assert set(decision["patients"]) == set(range(max(decision["patients"]) + 1))


@pytest.mark.release
def test_a_run_that_joins_views_of_an_image_is_refused(world, tmp_path):
    run = shutil.copytree(world.run("detector"), tmp_path / "run")
    model = json.loads((run / "model.json").read_text())
    model["arguments"]["views"] = ["flip"]
    (run / "model.json").write_text(json.dumps(model))
    assert cxr("export", run, tmp_path / "export", "--format", "onnx") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("damage", ["gone", "cut"])
@pytest.mark.parametrize("name", ["model.onnx", "export.json", "preprocess.json", "decision.json"])
def test_a_damaged_export_is_one_line_that_names_the_file(world, films, tmp_path, name, damage):
    folder = shutil.copytree(world.export("classifier"), tmp_path / "export")
    if damage == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    else:
        (folder / name).unlink()
    if damage == "gone" and name == "decision.json":
        assert Run.open(folder).predict(films[0]).decision is None
        return
    with pytest.raises(InputError, match=name if damage == "cut" else "export") as refused:
        cxr_compare.predict(folder, films[0])
    assert "\n" not in str(refused.value)


def test_several_exports_leave_python_a_stack_for_signals(world):
    serving.open_and_close(world.export("classifier"), times=2)
    assert serving.signal_stack_is_mapped()  # else Ctrl-C ends Python by a segmentation fault


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_labels_of_a_set_are_counted(world, data, tmp_path, capsys, kind):
    assert cxr("export", world.data, tmp_path / "out", "--format", kind, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["n_images"] + summary["n_left_out"] == len(data.images)
    assert summary["n_boxes"] == len(data.boxes)
    assert any((tmp_path / "out").rglob("*.*"))
