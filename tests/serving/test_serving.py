"""Answers for single images, and predictions of a set: whatever the file, the policy, the stop."""

import json
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image

import cxr_compare
from cxr_compare import InputError, Run
from tests.adapters import folders, serving
from tests.adapters.commands import cxr
from tests.small_dicom import as_file, chest, dicom_image, image_file

KINDS = ("detector", "classifier")
POLICIES = ("max_f1", "youden", "sensitivity>=0.8", "specificity>=0.8", "threshold=0.25")
VARYING = {"created", "command", "cost", "sha256"}


@pytest.fixture(scope="module")
def runs(world):
    """Both runs, opened on the CPU."""
    return {kind: Run.open(world.run(kind), name=kind, device="cpu") for kind in KINDS}


def copied_as_real(run, folder):
    """Copy a run as if it had learned from real images, so that it answers for them."""
    shutil.copytree(run, folder)
    folders.edit_record(folder / "run.json", synthetic=False)
    return folder


@pytest.fixture(scope="module")
def real_runs(world, tmp_path_factory):
    """Folders of both runs as if of real images."""
    folder = tmp_path_factory.mktemp("real")
    return {kind: copied_as_real(world.run(kind), folder / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def of_real(real_runs):
    """Both runs as if of real images, opened on the CPU."""
    return {kind: Run.open(real_runs[kind], name=kind, device="cpu") for kind in KINDS}


@pytest.fixture(scope="module")
def data(world):
    return cxr_compare.DataSet.open(world.data)


@pytest.fixture(scope="module")
def film(data):
    """A radiograph of the test from black to white."""
    pixels = pydicom.dcmread(data.image_file(data.image_ids("test")[0]).path).pixel_array.astype(
        float
    )
    return np.uint8(np.round(255 * (pixels - pixels.min()) / np.ptp(pixels)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dicom(pixels, **elements):
    chest = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}
    return as_file(dicom_image(pixels, **{**chest, **elements}))


def contents(folder):
    """Bytes of each file of a folder; of JSON the values, without those of one call."""
    files = {path for path in folder.rglob("*") if path.is_file()}
    return {
        path.relative_to(folder): (
            {
                key: value
                for key, value in json.loads(path.read_text()).items()
                if key not in VARYING
            }
            if path.suffix == ".json"
            else path.read_bytes()
        )
        for path in files
    }


FORMATS = {
    "plain.dcm": (0, dicom),
    "negative.dcm": (0, lambda x: dicom(255 - x, PhotometricInterpretation="MONOCHROME1")),
    "deep.dcm": (3, lambda x: dicom(np.uint16(np.round(x * (4095 / 255))), bits_stored=12)),
    "signed.dcm": (3, lambda x: dicom(x.astype(np.int16) * 8 - 1000)),
    "plain.png": (0, lambda x: image_file(x, "PNG")),
    "deep.png": (3, lambda x: image_file(x.astype(np.uint16) * 257, "PNG")),
    "rgb.png": (0, lambda x: image_file(np.dstack([x] * 3), "PNG")),
    "film.jpg": (16, lambda x: image_file(x, "JPEG", quality=95)),
    "plain.tif": (0, lambda x: image_file(x, "TIFF")),
    "deep.tif": (3, lambda x: image_file(x.astype(np.uint16) * 257, "TIFF")),
    "plain.bmp": (0, lambda x: image_file(x, "BMP")),
    "without_suffix": (0, dicom),
}
UNREADABLE = {
    "notes.txt": lambda x: b"no image",
    "empty.png": lambda x: b"",
    "cut.png": lambda x: image_file(x, "PNG")[:200],
    "cut.dcm": lambda x: dicom(x)[:700],
}


def test_each_format_gets_one_answer_and_what_cannot_be_read_its_reason(of_real, film, here):
    folder = here / "films"
    folder.mkdir()
    for name, (_, content) in FORMATS.items():
        (folder / name).write_bytes(content(film))
    for name, content in UNREADABLE.items():
        (folder / name).write_bytes(content(film))
    answers = of_real["classifier"].predict(folder)
    assert [answer.image for answer in answers] == [str(folder / name) for name in sorted(FORMATS)]
    for answer in answers:
        name = answer.image.rpartition("/")[2]
        apart = np.abs(answer.pixels.astype(int) - film).max()
        assert apart <= FORMATS[name][0], name
        assert answer.warnings == []
        assert answer.score == pytest.approx(answers[-1].score, abs=2e-3), name
        assert any("MONOCHROME1" in note for note in answer.notes) == (name == "negative.dcm")
    assert set(answers.left_out) == {str(folder / name) for name in UNREADABLE}
    assert all(path in reason for path, reason in answers.left_out.items())


@pytest.mark.parametrize("name", UNREADABLE)
def test_one_file_that_cannot_be_read_is_an_error_of_one_line(runs, film, here, name):
    (here / name).write_bytes(UNREADABLE[name](film))
    with pytest.raises(InputError, match=name) as refused:
        runs["classifier"].predict(here / name)
    assert "\n" not in str(refused.value)


def test_pixels_are_answered_as_their_file(of_real, film, here):
    path = here / "film.png"
    path.write_bytes(image_file(film, "PNG"))
    for run in of_real.values():
        given = [path, str(path), film, np.dstack([film] * 3), Image.open(path)]
        answers = run.predict(given)
        assert isinstance(answers, cxr_compare.Answers)
        assert [answer.image for answer in answers] == [str(path)] * 2 + ["array"] * 3
        assert answers[0].score is not None
        assert len({answer.score for answer in answers}) == 1
        assert run.predict(film).score == answers[0].score
        assert run.predict([]) == []
        assert all(answer.boxes.equals(answers[0].boxes) for answer in answers)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((2, 3, 4, 4), np.uint8),
        np.full((4, 4), 0.5),
        np.full((4, 4), 700, np.uint16),
        np.ones((4, 4), bool),
        torch.zeros(4, 4),
        Image.new("I;16", (4, 4)),
        Image.new("RGBA", (4, 4)),
        b"GIF89a",
        {"a.png": 1},
        None,
        pd.DataFrame({"path": ["a.png"]}),
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'shape', '')}",
)
def test_pixels_whose_greys_are_not_known_are_refused(runs, given):
    with pytest.raises(InputError, match=r"^image: "):
        runs["classifier"].predict(given)


def chosen(labels, scores, policy):
    """The threshold of a policy among the midpoints of validation scores, counted by hand."""
    if policy.startswith("threshold="):
        return float(policy.partition("=")[2])
    steps = np.unique(scores)
    cuts = (steps[1:] + steps[:-1]) / 2
    called = scores >= cuts[:, None]
    found, false = (called & labels).sum(axis=1), (called & ~labels).sum(axis=1)
    sensitivity = found / labels.sum()
    specificity = 1 - false / (~labels).sum()
    kind, _, floor = policy.partition(">=")
    if kind == "sensitivity":
        return cuts[sensitivity >= float(floor)].max()
    if kind == "specificity":
        return cuts[specificity >= float(floor)].min()
    worth = sensitivity + specificity
    if kind == "max_f1":
        worth = 2 * found / (called.sum(axis=1) + labels.sum())
    return cuts[np.isclose(worth, worth.max())].max()


def test_each_policy_decides_by_the_threshold_that_validation_gives_it(world, data):
    stored = cxr_compare.Predictions.open(world.predictions("classifier"))
    scores = stored.scores.set_index("image_id")["score"]
    labels = data.labels(data.target())[list(data.image_ids("val"))].dropna().astype(bool)
    of_test = [data.image_file(name).path for name in data.image_ids("test")[:3]]
    for policy in POLICIES:
        run = Run.open(world.run("classifier"), policy=policy, device="cpu")
        expected = chosen(labels.to_numpy(), scores[labels.index].to_numpy(), policy)
        for answer in run.predict(of_test):
            assert answer.policy == policy
            assert answer.threshold == pytest.approx(expected, abs=1e-6)
            assert answer.decision is bool(answer.score >= answer.threshold)


@pytest.mark.parametrize("change", ["gone", "of other weights", "of one class"])
def test_a_run_that_cannot_decide_says_why_and_is_never_negative(world, film, tmp_path, change):
    run = shutil.copytree(world.run("classifier"), tmp_path / "run")
    decision = json.loads((run / "decision.json").read_text())
    changes = {
        "of other weights": {"weights": "0" * 64},
        "of one class": {"positive": [False] * len(decision["positive"])},
    }
    if change == "gone":
        (run / "decision.json").unlink()
        folders.name_files(run)
    else:
        folders.edit_record(run / "decision.json", **changes[change])
    answer = Run.open(run, device="cpu").predict(film)
    assert answer.threshold is None
    assert answer.decision is None
    assert answer.to_json()["decision"] is None
    assert answer.undecided_because


def rewrite(run, positive, scores):
    """Replace the validation images of a run, each of a patient of its own."""
    path = run / "decision.json"
    numbers = list(range(len(scores)))
    folders.edit_record(path, positive=positive, scores=scores, patients=numbers)


@pytest.mark.parametrize(("apart", "guesses"), [(0.0, True), (0.06, True), (0.5, False)])
def test_a_system_that_may_guess_says_so_with_its_interval(world, film, tmp_path, apart, guesses):
    run = shutil.copytree(world.run("classifier"), tmp_path / "run")
    labels = np.arange(80) % 2
    scores = np.random.default_rng(3).uniform(0, 0.5, 80) + apart * labels
    rewrite(run, [bool(label) for label in labels], scores.tolist())
    expected = cxr_compare.metrics.estimate("auroc", labels, scores, patients=np.arange(80))
    (caution,) = Run.open(run, name="A", device="cpu").predict(film).cautions or [None]
    assert (caution is not None) == guesses == (expected.ci_low <= 0.5)
    if guesses:
        parts = (expected.estimate, expected.ci_low, expected.ci_high)
        assert all(f"{part:.2f}" in caution for part in parts)
        assert "80 validation images" in caution


def test_an_image_of_the_training_or_a_near_copy_of_it_is_cautioned(runs, data, world, tmp_path):
    run = runs["classifier"]
    path = data.image_file(data.image_ids("train")[0]).path
    pixels = pydicom.dcmread(path).pixel_array
    for given in (path, pixels, np.uint8(pixels // 2 + 30)):
        answer = run.predict(given)
        assert answer.seen_in_training == "train"
        assert any("trained" in caution for caution in answer.cautions)
    noise = np.random.default_rng(1).integers(0, 255, (96, 96), dtype=np.uint8)
    new = run.predict(noise)
    assert new.seen_in_training == "no"
    assert not any("trained" in caution for caution in new.cautions)
    # Nobody knows what trained the weights that a run started from.
    other = shutil.copytree(run.folder, tmp_path / "run")
    weights = {"weights": "other.pth", "trained_on": "unknown"}
    folders.edit_record(other / "run.json", started_from=weights)
    assert Run.open(other, device="cpu").predict(noise).seen_in_training == "unknown"


def test_a_run_of_drawings_decides_on_drawings_alone(runs, data, film, here):
    drawn = runs["classifier"].predict(data.image_file(data.image_ids("test")[0]).path)
    assert drawn.warnings == []
    assert drawn.decision is not None
    assert any("synthetic" in note for note in drawn.notes)
    Image.fromarray(film).save(here / "real.png")  # says nothing of being drawn
    real = runs["classifier"].predict(here / "real.png")
    assert any("synthetic" in warning for warning in real.warnings)
    assert (real.status, real.decision) == ("doubtful", None)


FIGURES = ("decision", "score", "probability", "findings", "boxes")


def figures_of(answer):
    """The figures of an answer that are there, by every face of it that is a record."""
    faces = {**answer.to_json(), **{f"row {k}": v for k, v in answer.to_row().items()}}
    faces |= {f"python {name}": getattr(answer, name) for name in FIGURES}
    faces["python boxes"] = len(answer.boxes)
    wanted = {f"{face}{name}" for face in ("", "row ", "python ") for name in FIGURES}
    return {name for name in wanted & {*faces} if faces[name] not in (None, "", [], {}, 0)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_withheld_answer_shows_no_figure_and_another_keeps_its_own(
    runs, real_runs, film, here, kind
):
    Image.fromarray(film).save("film.png")
    Image.fromarray(np.dstack([film, film // 2, film // 3])).save("photograph.png")
    policy = "threshold=0.0"  # each image is positive
    shown = Run.open(real_runs[kind], name="A", policy=policy, device="cpu").predict("film.png")
    assert {"decision", "score", "row probability", "findings"} <= figures_of(shown)
    faces_of_boxes = {"boxes", "row boxes", "python boxes"}
    assert figures_of(shown) & faces_of_boxes == (faces_of_boxes if kind == "detector" else set())
    doubting = Run.open(runs[kind].folder, name="A", policy=policy, device="cpu")
    for withheld in (doubting.predict("film.png"), doubting.predict(["photograph.png"])[0]):
        assert withheld.status == "doubtful"
        assert figures_of(withheld) == set()
        assert str(withheld).split("  ") == [withheld.image, "A", "no answer"]
        assert "score=None" in repr(withheld)
        assert withheld.threshold == 0.0  # which is of the system
    # Of two systems on one image each has its own status, in the table as in Python.
    words = [f"one={runs[kind].folder}", f"two={real_runs[kind]}", "film.png", "photograph.png"]
    assert cxr("predict", *words, "--csv", "table.csv", "--device", "cpu") == 0
    table = pd.read_csv("table.csv").set_index(["image", "system"])
    numbers = table[["probability", "score", "decision"]]
    answered = numbers.notna().all(axis=1)
    assert answered[answered].index.tolist() == [("film.png", "two")]
    assert numbers[~answered].isna().all(axis=None)
    assert (table["status"] == "ok").equals(answered)


@pytest.mark.parametrize(
    "kind", ["classifier", pytest.param("detector", marks=pytest.mark.release)]
)
def test_an_image_on_which_the_network_fails_gets_no_answer_and_leaves_the_others(
    runs, world, data, kind, here
):
    dark, bright = np.full((64, 64), 20, np.uint8), np.full((64, 64), 250, np.uint8)
    for name, pixels in (("a.png", dark), ("b.png", bright)):
        Image.fromarray(pixels).save(name)
    with serving.failing(above=100):
        answers = runs[kind].predict(here)
        assert [answer.image for answer in answers] == [str(here / "a.png")]
        assert list(answers.left_out) == [str(here / "b.png")]
        with pytest.raises(InputError, match="not finite"):
            runs[kind].predict(bright)
    means = [
        pydicom.dcmread(data.image_file(name).path).pixel_array.mean()
        for name in data.image_ids("test")
    ]
    with serving.failing(above=np.median(means)):
        made = cxr_compare.predict(world.run(kind), data=world.data, out=here / "p", device="cpu")
    failed = made.images.loc[made.images["status"] == "failed", "image_id"]
    assert 0 < len(failed) < len(made.images)
    table = made.boxes if kind == "detector" else made.scores
    assert not set(failed) & set(table["image_id"])


def test_boxes_lie_on_the_image_and_are_drawn_for_any_shape(real_runs, here):
    for folder in real_runs.values():
        opened = Run.open(folder, policy="threshold=0.0", device="cpu")
        for shape in ((120, 90), (64, 2000), (2000, 64), (8, 2000)):
            (here / "film.dcm").write_bytes(dicom(chest(0, *shape)))
            answer = opened.predict("film.dcm")
            is_answered = shape != (8, 2000)  # which is too small
            assert is_answered == (answer.warnings == []) == (answer.score is not None)
            assert not is_answered or len(answer.boxes) > 0 or opened.network.kind == "scores"
            assert (answer.boxes[["x1", "y1"]].to_numpy() >= 0).all()
            assert (answer.boxes[["x2", "y2"]].to_numpy() <= [shape[1], shape[0]]).all()
            assert answer._repr_png_().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def zoo(world, tmp_path_factory):
    """A folder of runs, as one call of `cxr train` for several configurations makes it."""
    folder = tmp_path_factory.mktemp("zoo") / "zoo"
    for name, kind in (("b", "classifier"), ("a", "detector")):
        shutil.copytree(world.run(kind), folder / name)
    return folder


def test_a_folder_of_runs_stands_for_its_runs(world, data, zoo, tmp_path, capsys):
    path = data.image_file(data.image_ids("test")[0]).path
    of_folder = cxr_compare.predict(zoo, path, device="cpu")
    one_by_one = cxr_compare.predict(f"a={zoo / 'a'}", f"b={zoo / 'b'}", path, device="cpu")
    assert [answer.to_json() for answer in of_folder] == [a.to_json() for a in one_by_one]
    assert [answer.system for answer in of_folder] == ["a", "b"]
    out = tmp_path / "predicted"
    made = cxr_compare.predict(zoo, data=world.data, out=out, device="cpu")
    for name, kind in (("a", "detector"), ("b", "classifier")):
        stored = cxr_compare.Predictions.open(out / name)
        expected = cxr_compare.Predictions.open(world.predictions(kind))
        table = "boxes" if kind == "detector" else "scores"
        pd.testing.assert_frame_equal(getattr(stored, table), getattr(expected, table))
        assert made.predictions[name].name == name
    before = contents(out)
    cxr_compare.predict(zoo, data=world.data, out=out, device="cpu")
    assert contents(out) == before  # complete predictions are taken as they are


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_answers_as_the_processor_does(runs, world, data, kind, tmp_path):
    run = Run.open(world.run(kind), name=kind, device="cuda")
    paths = [data.image_file(name).path for name in data.image_ids("test")]
    for one, other in zip(run.predict(paths), runs[kind].predict(paths), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
    made = cxr_compare.predict(
        world.run(kind), data=world.data, out=tmp_path / "p", device="cuda"
    ).info
    stored = cxr_compare.Predictions.open(world.predictions(kind)).info
    assert made.training_id == stored.training_id
    assert made.inference_id != stored.inference_id
