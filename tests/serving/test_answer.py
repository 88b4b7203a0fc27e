"""Answers for single images: what goes in, what comes out, and how it is said and drawn."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands import predict
from cxr_compare.serving.answer import (
    ANSWER_COLUMNS,
    COLOUR,
    TABLE_COLUMNS,
    Answer,
    draw_answers,
    render_answers,
)
from cxr_compare.serving.guard import Guard, Warned
from cxr_compare.serving.run import Run
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_info import RunInfo

ROOT = Path(__file__).resolve().parents[2]
TARGET = Target("opacity", ("lung_opacity",), "Lung opacity")


@pytest.fixture(scope="module")
def run() -> Run:
    """A classifier that has learned nothing, and has no operating point and no guard."""
    torch.manual_seed(0)
    folder: Any = SimpleNamespace(
        folder=Path("run"), info=RunInfo(name="run", findings=["lung_opacity"]), synthetic=False
    )
    network = build_classifier("resnet18", image_size=64).eval()
    model = TrainedModel(folder, network, Preprocess(size=64, mean=0.5, std=0.25), "fp32", "cpu")
    run = Run(Path("run"), "CheXNet")
    run.model, run.target = model, TARGET
    return run


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey image of 90 x 120 px."""
    path = tmp_path_factory.mktemp("images") / "film.png"
    coarse = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((10, 10), np.uint8))  # noise of single pixels is doubted
    Image.fromarray(pixels).save(path)
    return path


def test_a_file_and_its_pixels_get_the_same_answer(run: Run, chest: Path) -> None:
    pixels = np.asarray(Image.open(chest))
    from_file, from_pixels, from_colour = run.predict_many([chest, pixels, np.dstack([pixels] * 3)])
    assert from_file.image == str(chest)
    assert from_pixels.image == "array"
    assert from_file.score == from_pixels.score == from_colour.score
    assert from_file.decision is None
    assert "cxr train" in str(from_file.undecided_because)
    assert from_file.grid is not None  # though without an operating point no contour is known
    assert from_file.grid.values.shape == (2, 2)
    assert from_file.boxes.columns.tolist() == ["finding", "x1", "y1", "x2", "y2", "score"]


def test_pixels_as_notebooks_have_them_get_the_answer_of_the_file(run: Run, chest: Path) -> None:
    image = Image.open(chest)
    pixels = np.asarray(image)
    planes = np.stack([pixels] * 3)
    tensor = torch.from_numpy(planes.copy())
    transparent = image.convert("RGBA")
    inputs = {
        "float in [0, 1]": pixels / 255,
        "float32": (pixels / 255).astype(np.float32),
        "(3, H, W)": planes,
        "(1, H, W)": pixels[None],
        "(H, W, 1)": pixels[..., None],
        "float (3, H, W)": planes / 255,
        "tensor (H, W)": torch.from_numpy(pixels.copy()),
        "tensor (3, H, W)": tensor,
        "float tensor": (tensor / 255).requires_grad_(),
        "PIL grey": image,
        "PIL RGB": image.convert("RGB"),
        "PIL with transparency": transparent,
        "PIL palette": image.convert("P"),
        "PIL float": Image.fromarray((pixels / 255).astype(np.float32)),
    }
    expected = run.predict(chest)
    for kind, image in inputs.items():
        answer = run.predict(image)
        assert not isinstance(answer, list), kind
        assert answer.score == expected.score, kind
        assert answer.pixels.shape == (120, 90), kind
    assert [answer.score for answer in run.predict(list(inputs.values())[:3])] == [
        expected.score
    ] * 3


def test_transparent_pixels_of_a_pil_image_are_black_as_in_its_file(run, chest, tmp_path) -> None:
    image = Image.open(chest).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "clear.png")
    from_file, from_image = run.predict([tmp_path / "clear.png", image])
    assert np.array_equal(from_file.pixels, from_image.pixels)


def test_a_pydicom_data_set_gets_the_answer_of_its_file(run: Run, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = Path(pydicom.examples.get_path("ct"))
    dataset = pydicom.dcmread(path)
    from_file, from_dataset = run.predict([path, dataset])
    assert from_dataset.score == from_file.score
    assert from_dataset.warnings == from_file.warnings
    assert from_file.warnings  # a CT slice: its header says so
    assert from_dataset.image == "array"
    del dataset.PixelData
    with pytest.raises(InputError, match=r"pydicom .*\(modality CT\)") as refused:
        run.predict(dataset)
    assert "tmp" not in str(refused.value)
    with pytest.raises(InputError, match=r"pydicom .*\(ValueError\)"):
        run.predict(pydicom.Dataset())


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\); .*\[\.\.\., :3\]"),
        (np.zeros(4, np.uint8), r"uint8 \(4,\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"\(2, 3, 4, 4\); .*list\(batch\)"),
        (torch.zeros(2, 3, 4, 4), r"\(2, 3, 4, 4\); .*list\(batch\)"),
        (np.full((4, 4), 200.0), r"float64 \(4, 4\), values 200 to 200; .* 255"),
        (np.full((4, 4), -1.5), r"values -1\.5 to -1\.5; .*image \* std \+ mean"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), 700, np.uint16), r"uint16 \(4, 4\), values 700 to 700; "),
        (np.full((4, 4), 7), r"int64 \(4, 4\), values 7 to 7; .*image\.astype\('uint8'\)"),
        (np.ones((4, 4), bool), r"bool \(4, 4\); .*255 \* image"),
        (Image.new("I;16", (4, 4)), "mode I;16 .* 8 bits"),
        (b"GIF89a", r"got 6 bytes.*PIL\.Image\.open\(io\.BytesIO\(data\)\)"),
        ({"a.png": 1}, "got dict; give its images or paths as a list"),
        (pd.DataFrame({"path": ["a.png"]}), "got DataFrame; give its images or paths as a list"),
    ],
)
def test_what_needs_a_conversion_is_refused_with_it(run: Run, pixels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run.predict(pixels)


def test_a_list_gets_the_list_of_its_answers_and_what_cannot_be_read_is_named(
    run: Run, chest: Path
) -> None:
    pixels = np.asarray(Image.open(chest))
    for several in ([str(chest), pixels], iter([chest, pixels])):
        assert [answer.image for answer in run.predict(several)] == [str(chest), "array"]
    assert run.predict([]) == []
    with pytest.raises(InputError, match=r"gone\.png"):
        run.predict([chest, chest.with_name("gone.png")])
    for wrong, kind in ((None, "NoneType"), ([[chest]], "list")):
        with pytest.raises(InputError, match=f"^image: .* {kind}$"):
            run.predict(wrong)  # type: ignore[call-overload]


def test_an_image_on_which_the_network_fails_is_an_error_and_leaves_the_others(run, monkeypatch):
    dark, bright = np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)
    forward = run.model.model.features

    def break_bright(images: torch.Tensor) -> Any:
        return forward(images) / (images.float().mean(dim=(1, 2, 3)) < 128)[:, None, None, None]

    monkeypatch.setattr(run.model.model, "features", break_bright)
    assert run.predict(dark).score > 0
    with pytest.raises(InputError, match=r"array: .* CheXNet "):
        run.predict(bright)


def answer(**changed: Any) -> Answer:
    boxes = [("lung_opacity", 10.4, 20.0, 30.0, 40.6, score) for score in (0.9, 0.8, 0.7, 0.6)]
    table = pd.DataFrame(boxes, columns=["finding", "x1", "y1", "x2", "y2", "score"])
    fields: dict[str, Any] = {
        "image": "film.png", "system": "RetinaNet", "kind": "boxes", "finding": "Lung opacity",
        "score": 0.9, "probability": 0.834, "policy": "max_f1", "threshold": 0.41,
        "computed_decision": True, "boxes": table, **changed,
    }  # fmt: skip
    return Answer(**fields)


def test_a_line_says_decision_probability_and_boxes_and_shortens_long_lists() -> None:
    assert str(answer()) == (
        "film.png  RetinaNet  POSITIVE  probability 0.83  score 0.900 (threshold 0.410)  4 boxes: "
        "10,20-30,41 (0.90), 10,20-30,41 (0.80), 10,20-30,41 (0.70), 1 more"
    )
    none = answer().boxes[:0]
    assert str(answer(computed_decision=False, score=0.1, probability=0.04, boxes=none)) == (
        "film.png  RetinaNet  negative  probability 0.04  score 0.100 (threshold 0.410)"
    )
    undecided = answer(computed_decision=None, probability=None, threshold=None, boxes=none)
    assert str(undecided) == "film.png  RetinaNet  undecided  score 0.900"


def test_an_answer_that_a_warning_speaks_against_is_called_none() -> None:
    doubtful = answer(warnings=(Warned("odd"),))
    assert str(doubtful) == (
        "film.png  RetinaNet  no answer  probability 0.83  score 0.900 (threshold 0.410)"
    )
    assert (doubtful.to_json()["status"], answer().to_json()["status"]) == ("doubtful", "ok")
    assert (doubtful.decision, doubtful.computed_decision, len(doubtful.boxes)) == (None, True, 4)
    drawn = [
        render_answers(
            [answer(warnings=warned, prediction=ImagePrediction("A", COLOUR, score=0.9))]
        )
        for warned in ((), (Warned("odd"),))
    ]
    assert (np.ptp(drawn[0][..., :3], axis=2) > 60).any()  # the system's colour
    assert not (np.ptp(drawn[1][: len(drawn[0]) // 2], axis=2) > 60).any()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.arange(25, dtype=np.uint8).reshape(5, 5), "5 x 5 px is too small for an X-ray"),
        (np.full((90, 120), 7, np.uint8), "without contrast"),
    ],
    ids=["icon", "one grey"],
)
def test_an_image_that_shows_nothing_gets_a_warning_as_a_file_and_as_pixels(
    run, pixels, message, tmp_path
):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for answer in run.predict_many([tmp_path / "a.png", pixels]):
        (warning,) = answer.warnings
        assert warning.startswith(message)


def test_boxes_of_an_answer_end_where_the_image_ends() -> None:
    boxes = np.array([[-2.0, -3.0, 50.0, 95.0, 0.9], [100.0, 10.0, 130.0, 40.0, 0.8]])
    prediction = ImagePrediction("CheXNet", COLOUR, score=0.9, boxes=boxes)
    answer = Answer.of_prediction(
        prediction, np.array(["a", "a"]), image="a", system="CheXNet", kind="scores",
        finding="A", policy="", pixels=np.zeros((90, 120), np.uint8),
    )  # fmt: skip
    assert answer.boxes[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [
        [0, 0, 50, 90], [100, 10, 120, 40],
    ]  # fmt: skip
    assert boxes[0, 0] == -2  # of the overlay, which cuts them itself


def test_an_answer_is_plain_json() -> None:
    entry = json.loads(json.dumps(answer(warnings=(Warned("odd"),)).to_json()))
    assert (entry["decision"], entry["computed_decision"]) == (None, "positive")
    assert answer().to_json()["decision"] == "positive"
    assert {"pixels", "prediction", "seen", "guard_distance", "map"}.isdisjoint(entry)
    described = Answer.model_json_schema(mode="serialization")["properties"]
    assert described.keys() == {*entry, "map"}
    assert all(field.get("description") for field in described.values())
    assert entry["boxes"][0] == {
        "finding": "lung_opacity", "x1": 10.4, "y1": 20.0, "x2": 30.0, "y2": 40.6, "score": 0.9,
    }  # fmt: skip
    assert entry["warnings"] == ["odd"]


def test_shared_warnings_appear_once_after_those_of_the_image() -> None:
    about = ("dark", "unlike what trained {}", "{} learned from drawings")
    answers = [
        answer(
            system=name, warnings=tuple(Warned(text.format(name)) for text in about if name in only)
        )
        for name, only in (("A", "AB"), ("B", "AB"), ("C", "C"))
    ]
    assert Answer.joint_warnings(answers[:1]) == [
        "dark",
        "unlike what trained A",
        "A learned from drawings",
    ]
    assert Answer.joint_warnings(answers) == [
        "dark", "unlike what trained A, B and C", "A, B and C learned from drawings"
    ]  # fmt: skip


def test_a_table_of_answers_has_the_columns_that_the_page_names() -> None:
    page = (ROOT / "docs/formats.md").read_text()
    assert f"\n{','.join(TABLE_COLUMNS)}\n" in page
    row = answer(image="=1+1.png", warnings=(Warned("odd"), Warned("dark"))).to_row()
    assert tuple(row) == ANSWER_COLUMNS
    assert (row["image"], row["decision"], row["warnings"]) == ("'=1+1.png", None, "odd; dark")
    assert row["boxes"].startswith("10.4,20.0,30.0,40.6,0.9000;")


@pytest.mark.parametrize("size", [(120, 90), (8, 2000), (2000, 8)], ids=str)
def test_an_image_of_any_shape_is_drawn_beside_each_answer(run, size):
    one = run.predict(np.zeros(size, np.uint8))
    picture = render_answers([one, one], panel=96)
    assert picture.dtype == np.uint8
    assert picture.shape[1] >= 3 * 64
    figure = draw_answers([one], panel=96)
    width, height = figure.get_size_inches() * figure.dpi
    single = render_answers([one], panel=96)
    assert (round(height), round(width)) == single.shape[:2]


@pytest.fixture
def loaded(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """In a folder of its own, with a run that `cxr predict` finds and that warns of all images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    warnings = (Warned("no chest"),)
    guard = SimpleNamespace(warnings=lambda *_: warnings, score=lambda *_: 2.0)
    run.guard = cast(Guard, guard)
    monkeypatch.setattr(predict, "open_runs", lambda *_: [run])
    yield run
    run.guard = None


def ask(*paths: Path | str, **options: Any) -> int:
    return run_command(predict.predict, "run", *paths, batch_size=2, **options)


def test_warnings_come_before_the_answer_and_strict_refuses(loaded, chest, capsys):
    ask(chest)
    warning, line = capsys.readouterr().out.splitlines()
    assert warning == f"{chest}  WARNING: no chest"
    assert line.startswith(f"{chest}  CheXNet  no answer  score ")
    with pytest.raises(InputError, match="none of 1 file "):
        ask(chest, strict=True, as_json=True)
    shown = capsys.readouterr()
    assert "--strict" in shown.err
    (refused,) = json.loads(shown.out)
    assert refused["problem"].endswith("--strict")
    assert refused["status"] == "refused"


def test_overlays_get_distinct_names_and_are_no_input_of_the_next_call(
    loaded, chest, tmp_path, capsys
):
    for name in ("a/film.png", "b/film.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(chest.read_bytes())
    ask("a", "b", out="a")
    capsys.readouterr()
    drawn = {path.name for path in Path("a").iterdir()}
    assert drawn == {"film.png", "film-overlay.png", "film-2-overlay.png"}
    assert Path("a/film.png").read_bytes() == chest.read_bytes()
    ask("a", out="a")
    assert len(capsys.readouterr().out.splitlines()) == 2  # a warning and an answer


def test_an_interrupted_table_keeps_its_rows_under_another_name(loaded, chest, monkeypatch, capsys):
    ask(chest, csv=Path("all.csv"))
    assert pd.read_csv("all.csv")["image"].tolist() == [str(chest)]

    def interrupt(self: Run, images: list[Any], file_warnings: None) -> list[Any]:
        if images[0][0] == "second.png":
            raise KeyboardInterrupt
        return [answer(image=name, pixels=np.zeros((8, 8), np.uint8)) for name, _ in images]

    monkeypatch.setattr(Run, "answer", interrupt)
    Path("second.png").write_bytes(chest.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        ask(chest, "second.png", csv=Path("some.csv"))
    assert "Table so far: some.csv.unfinished" in capsys.readouterr().err
    assert pd.read_csv("some.csv.unfinished")["image"].tolist() == [str(chest)]
    assert not Path("some.csv").exists()


def test_a_second_command_cannot_write_the_table_of_one_under_way(loaded, chest, monkeypatch):
    second_answers: list[str] = []

    def run_another(self: Run, images: list[Any], file_warnings: None) -> list[Any]:
        if not second_answers:
            second_answers.append("began")
            with pytest.raises(InputError, match=r"^one\.csv: "):
                ask("other.png", csv=Path("one.csv"))
        return [answer(image=name, pixels=np.zeros((8, 8), np.uint8)) for name, _ in images]

    monkeypatch.setattr(Run, "answer", run_another)
    Path("other.png").write_bytes(chest.read_bytes())
    ask(chest, csv=Path("one.csv"))
    assert second_answers == ["began"]
    assert pd.read_csv("one.csv")["image"].tolist() == [str(chest)]
    ask("other.png", csv=Path("one.csv"))  # afterwards it may
    assert pd.read_csv("one.csv")["image"].tolist() == ["other.png"]
    assert not [path.name for path in Path().iterdir() if path.name.startswith(".")]


def test_a_table_that_is_no_regular_file_is_refused(loaded, chest, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"--csv .*pipe\.csv: "):
        ask(chest, csv=tmp_path / "pipe.csv")
