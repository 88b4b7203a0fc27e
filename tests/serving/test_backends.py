"""`cxr predict --backend`: the export that is taken is of this run, proved, and can run here."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.store.views import View
from cxr_compare.serving import backends
from cxr_compare.serving.backends import choose_backend, export_folder
from cxr_compare.serving.export_graph import write_graph
from cxr_compare.serving.export_spec import EXPORT_FILE, ExportSpec
from cxr_compare.serving.exported_model import ExportedModel
from cxr_compare.serving.run import Run
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_info import RunInfo
from tests.plain_info import export_spec

SIZE = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A classifier that has learned nothing, with the files that tell its identity."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    for name in ("model.safetensors", "model.json"):
        (folder / name).write_bytes(b"{}")
    Preprocess(size=SIZE, mean=0.5, std=0.25).write(folder / "preprocess.json")
    run: Any = SimpleNamespace(
        folder=folder, info=RunInfo(name="CheXNet", findings=("opacity",)), synthetic=False
    )
    network = build_classifier("small_cnn", image_size=SIZE).eval()
    return TrainedModel(run, network, Preprocess(size=SIZE, mean=0.5, std=0.25), "fp32", "cpu")


@pytest.fixture
def spec(model: TrainedModel) -> ExportSpec:
    origin = model.info.with_values(inference_id=model.inference_id(), folder=str(model.folder))
    return export_spec(
        findings=("opacity",),
        target=Target("opacity", ("opacity",), "Lung opacity"),
        size=SIZE,
        map_frame=model.model.map_frame(1, 1),
        run=origin,
    )


@pytest.fixture
def run(tmp_path: Path, model: TrainedModel) -> Path:
    for path in model.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def put(run: Path, spec: ExportSpec, *, card: bool = True) -> Path:
    folder = export_folder(run, spec.format, spec.precision)
    folder.mkdir(parents=True)
    (folder / "preprocess.json").write_bytes((run / "preprocess.json").read_bytes())
    spec.write(folder / EXPORT_FILE)
    if card:
        (folder / "card.json").write_text("{}")
    return folder


def test_torch_is_used_unless_another_backend_is_requested(run: Path, spec: ExportSpec) -> None:
    put(run, spec)
    assert choose_backend(run)[:3] == (run, "torch", "fp32")
    assert choose_backend(run, "torch", "bf16")[:3] == (run, "torch", "bf16")


def test_auto_takes_openvino_before_onnx_before_torch(run: Path, spec: ExportSpec) -> None:
    engine = choose_backend(run, "auto")
    assert engine.backend == "torch"
    assert f"cxr export {run} --format openvino)" in engine.words
    onnx = put(run, spec)
    assert choose_backend(run, "auto")[:3] == (onnx, "onnx", "fp32")
    openvino = put(run, spec.with_values(format="openvino"))
    engine = choose_backend(run, "auto")
    assert engine[:3] == (openvino, "openvino", "fp32")
    assert engine.words == f"Back end: openvino fp32 ({openvino})"


def test_auto_takes_torch_for_a_gpu_and_for_what_torch_alone_can(run, spec):
    put(run, spec)
    assert choose_backend(run, "auto", gpu=True).words == "Back end: torch fp32 (a GPU is here)"
    assert choose_backend(run, "auto", needs_torch="--tta").backend == "torch"


def test_auto_leaves_out_a_runtime_that_is_not_installed(run, spec, monkeypatch):
    put(run, spec.with_values(format="openvino"))
    onnx = put(run, spec)
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "openvino" else name)
    assert choose_backend(run, "auto").folder == onnx
    with pytest.raises(InputError, match=r"--backend openvino: .*pip install openvino"):
        choose_backend(run, "openvino")


@pytest.mark.parametrize(
    ("backend", "precision", "options", "message"),
    [
        ("openvino", "int8", {"data": Path("a b")},
         "exports/openvino-.*cxr export .* --format openvino --precision int8 --data 'a b'"),
        ("openvino", None, {}, "exports/openvino-.*cxr export .* --format openvino$"),
        ("auto", "int8", {},
         "exports/openvino-int8: .*cxr export .* --format openvino --precision int8 --data D"),
        ("onnx", "int8", {}, "--precision int8: .*onnx.*--backend openvino"),
        (None, "int8", {}, "--precision int8: torch .*fp32 .*bf16.*--backend openvino .*onnx"),
        ("onnx", None, {"needs_torch": "--tta"}, "--tta: torch .*--backend onnx"),
    ],
    ids=["int8", "fp32", "auto int8", "onnx int8", "torch int8", "tta"],
)  # fmt: skip
def test_unavailable_backend_is_refused_with_a_remedy(run, backend, precision, options, message):
    with pytest.raises(InputError, match=message):
        choose_backend(run, backend, precision, **options)


def test_an_export_of_another_training_or_without_proof_is_not_taken(run, spec):
    put(run, spec, card=False)
    with pytest.raises(InputError, match=r"exports/onnx-fp32: .*not proved.*cxr export"):
        choose_backend(run, "onnx")
    (run / "exports/onnx-fp32/card.json").write_text("{}")
    assert choose_backend(run, "onnx").backend == "onnx"
    (run / "model.safetensors").write_bytes(b"trained anew")
    with pytest.raises(InputError, match=r"exports/onnx-fp32: .*another training.*cxr export"):
        choose_backend(run, "onnx")
    assert choose_backend(run, "auto").backend == "torch"


def test_an_export_made_on_a_processor_is_of_the_same_training_as_its_run_on_a_gpu(spec, model):
    exported = ExportedModel(model.folder, spec, model.preprocess)
    for here in (replace(model, device="cuda"), replace(model, precision="bf16")):
        assert here.inference_id() != model.inference_id()
        assert here.training_id() == exported.training_id() == model.inference_id()
    assert replace(model, views=(View(), View(flip=True))).training_id() != exported.training_id()


def test_an_export_itself_is_taken_as_it_is(run: Path, spec: ExportSpec) -> None:
    export = put(run, spec)
    for backend in (None, "auto", "onnx"):
        assert choose_backend(export, backend)[:3] == (export, "onnx", "fp32")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--backend torch: .*onnx-fp32 .*onnx;"):
        choose_backend(export, "torch")
    with pytest.raises(InputError, match=r"--precision int8: .*onnx-fp32 .*fp32;"):
        choose_backend(export, None, "int8")
    with pytest.raises(InputError, match=r"--maps layercam: torch .*onnx-fp32$"):
        choose_backend(export, needs_torch="--maps layercam")


def put_joint(folder: Path) -> Path:
    member = folder / "members/1-A"
    member.mkdir(parents=True)
    (folder / "predictions.json").write_text("{}")
    return member


def test_a_joint_system_of_runs_is_exported_whole_and_not_member_by_member(run, spec):
    joint = run / "joint"
    member = put_joint(joint)
    for name in ("model.safetensors", "model.json", "preprocess.json"):
        (member / name).write_bytes((run / name).read_bytes())
    put(member, spec)  # torch computes a member that is a run, whatever stands below it
    with pytest.raises(InputError, match=rf"no such export.*cxr export {joint} --format onnx$"):
        choose_backend(joint, "onnx")
    assert choose_backend(joint, "auto")[:3] == (joint, "torch", "fp32")
    exported = export_folder(joint, "onnx", "fp32")
    spec.write(put_joint(exported) / EXPORT_FILE)
    assert choose_backend(joint, "onnx")[:3] == (exported, "onnx", "fp32")


def test_an_export_answers_for_single_images_as_its_run(run, spec, model):
    export = put(run, spec)
    write_graph(model.model, export, "onnx")
    target = Target("opacity", ("opacity",), "Lung opacity")
    trained, exported = Run(model.folder, "CheXNet"), Run.open(export)
    trained.model, trained.target = model, target
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    expected, actual = trained.predict(pixels), exported.predict(pixels)
    assert actual.score == pytest.approx(expected.score, abs=1e-5)
    np.testing.assert_allclose(actual.grid.values, expected.grid.values, atol=1e-4)
    assert (actual.system, actual.finding) == ("CheXNet", "Lung opacity")
    assert "no operating point" in str(actual.undecided_because)
    assert exported.model.inference_id() != model.inference_id()
