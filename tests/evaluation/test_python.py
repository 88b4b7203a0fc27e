"""Arrays and objects of other libraries, which JSON cannot hold, given to the Python functions."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.tv_tensors import BoundingBoxes

import cxr_compare
from cxr_compare import InputError, boxes_table, metrics
from tests.adapters import tables

EDGES = ["x1", "y1", "x2", "y2"]
IDS = ["a", "b", "c"]
FOUND = {
    "a": [(10, 20, 30, 40, 0.75), (50, 60, 90, 80, 0.25)],
    "b": [],
    "c": [(7, 8, 17, 28, 0.5)],
}
TABLE = pd.DataFrame(
    [(name, *box) for name in IDS for box in FOUND[name]], columns=["image_id", *EDGES, "score"]
)


def arrays(name):
    rows = np.array(FOUND[name], float).reshape(-1, 5)
    return rows[:, :4], rows[:, 4]


def refused_parts(call, *parts):
    """The parts that the one line of a refusal lacks; the call must be refused."""
    with pytest.raises(InputError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line
    return [part for part in parts if part not in line]


def tensors(dtype=torch.float32, device=None):
    return [
        {
            "boxes": torch.tensor(boxes, dtype=dtype, device=device).requires_grad_(),
            "scores": torch.tensor(scores, dtype=dtype, device=device).requires_grad_(),
            "labels": torch.ones(len(boxes), dtype=torch.int64),
        }
        for boxes, scores in map(arrays, IDS)
    ]


def stated_sides():
    outputs = tensors()
    for output in outputs:
        corners = output["boxes"].detach()
        sides = torch.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        output["boxes"] = BoundingBoxes(sides, format="XYWH", canvas_size=(99, 99))
    return outputs


def ultralytics():
    """Objects with the documented attributes of a result, for the package is AGPL."""
    return [
        SimpleNamespace(
            boxes=SimpleNamespace(
                xyxy=torch.tensor(boxes), conf=torch.tensor(scores), cls=torch.zeros(len(boxes))
            ),
            names={0: "1"},
            path=f"/x/{name}.png",
        )
        for name, (boxes, scores) in zip(IDS, map(arrays, IDS), strict=True)
    ]


def supervision():
    sv = pytest.importorskip("supervision")
    return [
        sv.Detections(xyxy=boxes, confidence=scores, class_id=np.ones(len(boxes), int))
        if len(boxes)
        else sv.Detections.empty()
        for boxes, scores in map(arrays, IDS)
    ]


LIBRARIES = {
    "tensors": tensors,
    "bf16": lambda: tensors(torch.bfloat16),
    "stated sides": stated_sides,
    "Ultralytics": ultralytics,
    "supervision": supervision,
}


@pytest.mark.parametrize("make", LIBRARIES.values(), ids=LIBRARIES)
def test_objects_of_libraries_give_the_table_of_their_boxes(make):
    expected = TABLE.assign(finding="1")
    pd.testing.assert_frame_equal(boxes_table(make(), IDS), expected, check_dtype=False)


@pytest.mark.parametrize("make", LIBRARIES.values(), ids=LIBRARIES)
def test_objects_of_libraries_are_systems_and_targets(make):
    truth = pd.Series([1, 0, 1], index=IDS, name="mass")
    read = tables.read(truth, {"A": make()}, boxes=make())
    assert read["systems"]["A"]["boxes"] == TABLE.to_numpy().tolist()
    assert read["true_boxes"] == TABLE[["image_id", *EDGES]].to_numpy().tolist()


def test_paths_of_results_decide_which_image_each_is_of():
    images = TABLE["image_id"].tolist()
    assert boxes_table(ultralytics())["image_id"].tolist() == images
    in_another_order = boxes_table(ultralytics(), ["c.png", "a.png", "b.png"])
    assert in_another_order["image_id"].tolist() == [f"{name}.png" for name in images]
    assert boxes_table(ultralytics(), (7, 8, 9))["image_id"].tolist() == ["7", "7", "9"]
    contradicting = lambda: boxes_table(ultralytics(), ["b", "z", "c"])  # noqa: E731
    assert refused_parts(contradicting, "outputs[1]", "b.png") == []


@pytest.mark.parametrize(
    "ids", [tuple(IDS), np.array(IDS), pd.Index(IDS), pd.Series(IDS, index=[4, 5, 6]), iter(IDS)]
)
def test_ids_may_be_any_sequence(ids):
    assert boxes_table(tensors(), ids)["image_id"].tolist() == TABLE["image_id"].tolist()


LABELS = pd.Series([1, 0, 1, 0], index=[*"abcd"])
SCORES = [0.9, 0.2, 0.6, 0.3]
OF_IMAGES = dict(zip("abcd", SCORES, strict=True))


@pytest.mark.parametrize(
    "truth",
    [
        LABELS.astype("int8"),
        LABELS.astype(float),
        LABELS.astype("Int64"),
        LABELS.astype("boolean"),
        LABELS.astype(str),
        LABELS.astype(str).astype("category"),
        LABELS.map({1: "yes", 0: "no"}).astype("string"),
        LABELS.to_frame("label").rename_axis("image_id").reset_index(),
    ],
    ids=lambda truth: str(getattr(truth, "dtype", "frame")),
)
def test_labels_of_any_type_are_labels(truth):
    read = tables.read(truth, {"A": pd.Series(OF_IMAGES)})
    assert read["labels"] == {"a": 1, "b": 0, "c": 1, "d": 0}
    assert read["systems"]["A"]["scores"] == OF_IMAGES


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_any_missing_label_is_unknown(missing):
    truth = LABELS.astype(object)
    truth["c"] = missing
    read = tables.read(truth, {"A": pd.Series(OF_IMAGES)})
    assert read["labels"] == {"a": 1, "b": 0, "c": None, "d": 0}
    assert read["evaluated"] == ["a", "b", "d"]


@pytest.mark.parametrize(
    "scores",
    [
        np.array(SCORES),
        np.array(SCORES)[:, None],
        tuple(SCORES),
        torch.tensor(SCORES, dtype=torch.float64).requires_grad_(),
        [f"{score:.3f}" for score in SCORES],
        np.ma.masked_array(SCORES, mask=False),
        pd.Series(OF_IMAGES).sample(frac=1, random_state=0),
        pd.Series(OF_IMAGES).astype("Float64"),
        pd.DataFrame({"image": [*"abcd"], "prob": SCORES}).sample(frac=1, random_state=0),
    ],
    ids=["array", "column", "tuple", "tensor", "texts", "masked", "Series", "Float64", "frame"],
)
def test_scores_of_any_kind_are_scores(scores):
    assert tables.read(LABELS, {"A": scores})["systems"]["A"]["scores"] == OF_IMAGES


WRONG = {
    "masked": ("A", LABELS, np.ma.masked_less(SCORES, 0.25)),
    "complex": ("A", LABELS, np.array(SCORES) + 1j),
    "complex Series": ("A", LABELS, pd.Series(OF_IMAGES) + 1j),
    "a model": ("A", LABELS, torch.nn.Linear(1, 1)),
    "a function": ("A", LABELS, print),
    "a set": ("A", LABELS, set(SCORES)),
    "outputs in a Series": ("A", LABELS, pd.Series([{"boxes": [], "scores": []}] * 4)),
    "labels with two levels": (
        "truth",
        pd.Series([1, 0, 1, 0], pd.MultiIndex.from_product([[0, 1], [0, 1]])),
        SCORES,
    ),
    "complex labels": ("truth", np.array([1, 0, 1, 0]) + 1j, SCORES),
    "masked labels": ("truth", np.ma.masked_array([1, 0, 1, 0], mask=[1, 0, 0, 0]), SCORES),
}


def test_a_reversed_range_of_rows_is_matched_by_its_rows_or_refused(tmp_path):
    backwards = pd.Series(SCORES)[::-1]
    frame = pd.DataFrame({"image_id": [*"abcd"], "label": [1, 0, 1, 0]})
    read = tables.read(frame, {"A": backwards}, patients=pd.Series([*"ppqr"])[::-1])
    assert read["systems"]["A"]["scores"] == OF_IMAGES
    assert read["patients"] == dict(zip("abcd", "ppqr", strict=True))
    assert tables.read([1, 0, 1, 0], {"A": backwards})[0] == "refused"
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert tables.read(tmp_path / "t.csv", {"A": pd.Series(SCORES)})[0] == "refused"


@pytest.mark.parametrize(("name", "truth", "scores"), WRONG.values(), ids=WRONG)
def test_what_is_no_label_or_score_is_refused_by_its_name(name, truth, scores):
    outcome, line = tables.read(truth, {"A": scores})
    assert outcome == "refused"
    assert line.startswith(f"{name}: ")


Y, S = np.array([0, 1, 1, 0]), np.array([0.6, 0.8, 0.4, 0.3])
OF_ARRAYS = {
    "auroc": lambda y, s: metrics.auroc(y, s),
    "average_precision": lambda y, s: metrics.average_precision(y, s),
    "confusion_counts": lambda y, s: metrics.confusion_counts(y, s, 0.5),
    "classification_metrics": lambda y, s: metrics.classification_metrics(y, s, 0.5),
    "auroc_difference": lambda y, s: metrics.auroc_difference(y, s, s),
    "estimate": lambda y, s: metrics.estimate("auroc", y, s),
}
WRONG_ARRAYS = {
    "fewer scores": (Y, S[:3], ["(4,)", "(3,)"]),
    "scores of two columns": (Y, np.c_[1 - S, S], ["(4, 2)"]),
    "labels of two columns": (np.c_[1 - Y, Y], S, ["(4, 2)"]),
    "three kinds of labels": ([0, 1, 2, 0], S, ["row 2", "2"]),
    "labels of -1 and 1": ([-1, 1, 1, -1], S, ["row 0", "-1"]),
    "a label that is a share": ([0, 1, 0.5, 0], S, ["row 2", "0.5"]),
    "a missing label": ([0, 1, np.nan, 0], S, ["row 2", "nan"]),
    "a missing score": (Y, [0.1, np.nan, 0.4, 0.3], ["row 1", "nan"]),
    "an infinite score": (Y, [0.1, 0.8, np.inf, 0.3], ["row 2", "inf"]),
}


@pytest.mark.parametrize("function", OF_ARRAYS.values(), ids=OF_ARRAYS)
@pytest.mark.parametrize(("y", "s", "parts"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_wrong_arrays_give_no_figure_but_their_row_and_value(function, y, s, parts):
    assert refused_parts(lambda: function(y, s), *parts) == []


N = [f"image-{number}" for number in range(10)]
TRUE = pd.DataFrame({"image_id": N, "x1": 300.0, "y1": 400.0, "x2": 500.0, "y2": 500.0})
BOXES = TRUE.assign(score=np.linspace(0.05, 0.95, 10))
OF_BOXES = {"box_average_precision": metrics.box_average_precision, "froc": metrics.froc}


def cell(column, value):
    """A change of the cell of a column in row 3."""
    return lambda t: t.assign(**{column: [value if k == 3 else v for k, v in enumerate(t[column])]})


def named(pattern):
    return lambda t: t.assign(image_id=[pattern.format(name) for name in t["image_id"]])


def upper(table):
    return table.assign(image_id=table["image_id"].str.upper())


WRONG_BOXES = {
    "a missing score": (cell("score", np.nan), ["boxes: row 3", "'image-3'", "nan"]),
    "a logit": (cell("score", 2.5), ["boxes: row 3", "'image-3'", "2.5"]),
    "a score below 0": (cell("score", -1.5), ["boxes: row 3", "'image-3'", "-1.5"]),
    "percent": (lambda t: t.assign(score=100 * t["score"]), ["boxes: row 0", "5.0"]),
    "a missing edge": (cell("x1", np.nan), ["boxes: row 3", "'image-3'", "x1=nan"]),
    "an edge without end": (cell("y2", np.inf), ["boxes: row 3", "y2=inf"]),
    "no width in a tenth": (cell("x2", 300.0), ["boxes: row 3", "x1=300", "x2=300"]),
    "widths": (lambda t: t.assign(x2=200.0, y2=100.0), ["boxes: row 0", "x2=200"]),
    "shares": (lambda t: t.assign(**{e: t[e] / 1000 for e in EDGES}), ["boxes: row 0", "x1=0.3"]),
    "other images": (named("other-{}"), ["boxes", "'other-image-0'", "'image-0'"]),
    "file names": (named("{}.png"), ["boxes: row 0", "'image-0.png'", "'image-0'"]),
    "other case": (upper, ["boxes: row 0", "'IMAGE-0'", "'image-0'"]),
    "no x1": (lambda t: t.drop(columns="x1"), ["boxes", "'x1'"]),
    "a word": (lambda t: t.assign(x1="left"), ["boxes: row 0", "'left'"]),
    "a missing image": (cell("image_id", None), ["boxes: row 3", "image_id"]),
    "a dictionary": (lambda t: t.to_dict("list"), ["boxes", "dict"]),
    "two classes": (
        lambda t: t.assign(category_id=np.repeat([1, 2], 5)),
        ["boxes", "2", "1, 2"],
    ),
}


@pytest.mark.parametrize("metric", OF_BOXES.values(), ids=OF_BOXES)
@pytest.mark.parametrize(("change", "parts"), WRONG_BOXES.values(), ids=WRONG_BOXES)
def test_wrong_boxes_give_no_figure_but_their_row_image_and_value(metric, change, parts):
    assert refused_parts(lambda: metric(change(BOXES), TRUE, N), *parts) == []


FILES = named("{}.png")(BOXES)
MIXED = TRUE.assign(finding="mass")
WRONG_ARGUMENTS = {
    "an id twice": ((BOXES, TRUE, [*N, "image-0"]), ["image_ids", "'image-0'"]),
    "one image under two names": (
        (FILES, TRUE, sorted({*N, *FILES["image_id"]})),
        ["'image-0'", "'image-0.png'"],
    ),
    "one image in two cases": (
        (upper(BOXES), TRUE, sorted({*N, *upper(BOXES)["image_id"]})),
        ["image_ids", "IMAGE-0"],
    ),
    "tables without ids": ((BOXES, TRUE), ["image_ids"]),
    "lists of two lengths": ((tensors(), tensors()[:2]), ["boxes", "3", "2"]),
    "classes in two rows of each": (
        (BOXES.assign(finding=["x", "y"] * 5), TRUE, N),
        ["boxes", "x, y"],
    ),
    "another class than the truth": (
        (BOXES.assign(finding="edema"), MIXED, N),
        ["'edema'", "'mass'"],
    ),
    "a missing class": ((BOXES.assign(finding=["x", None] * 5), TRUE, N), ["boxes: row 1"]),
}


@pytest.mark.parametrize("metric", OF_BOXES.values(), ids=OF_BOXES)
@pytest.mark.parametrize(("given", "parts"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_arguments_that_would_give_a_wrong_figure_are_refused(metric, given, parts):
    assert refused_parts(lambda: metric(*given), *parts) == []


@pytest.mark.parametrize("make", [*LIBRARIES.values(), lambda: TABLE])
def test_every_form_of_boxes_gives_one_figure(make):
    truth = TABLE.drop(columns="score").assign(x1=TABLE["x1"] + 1)
    expected = metrics.box_average_precision(TABLE, truth, IDS)
    assert metrics.box_average_precision(make(), truth, IDS) == expected
    drawn = [{"boxes": truth.loc[truth["image_id"] == name, EDGES].to_numpy()} for name in IDS]
    assert metrics.box_average_precision(make(), drawn, tuple(IDS)) == expected


LESIONS = 40


def lesions(side):
    """True boxes, the size of each image, and room on both sides of the middle."""
    rng = np.random.default_rng(8)
    width, height = rng.integers(0.75 * side, 1.25 * side, (2, LESIONS)).astype(float)
    width = np.round(width * 0.6)
    x1 = np.where(np.arange(LESIONS) % 3 == 0, 0.55, 0.12) * width + rng.uniform(0, 0.05, LESIONS)
    y1 = rng.uniform(0.1, 0.5, LESIONS) * height
    return pd.DataFrame(
        {
            "image_id": [f"{number:03d}" for number in 10 + 2 * np.arange(LESIONS)],
            "width": width,
            "height": height,
            "x1": x1,
            "y1": y1,
            "x2": x1 + 0.2 * width,
            "y2": y1 + rng.uniform(0.2, 0.4, LESIONS) * height,
        }
    )


MISTAKES = {
    "y before x": lambda x1, y1, x2, y2, w, h: (y1, x1, y2, x2),
    "0 to 1000": lambda x1, y1, x2, y2, w, h: (
        1000 * x1 / w,
        1000 * y1 / h,
        1000 * x2 / w,
        1000 * y2 / h,
    ),
    "sides as corners": lambda x1, y1, x2, y2, w, h: (x1, y1, x2 - x1, y2 - y1),
    "corners as sides": lambda x1, y1, x2, y2, w, h: (x1, y1, x1 + x2, y1 + y2),
    "corners as a centre": lambda x1, y1, x2, y2, w, h: (
        x1 - x2 / 2,
        y1 - y2 / 2,
        x1 + x2 / 2,
        y1 + y2 / 2,
    ),
    "px of the input": lambda x1, y1, x2, y2, w, h: (
        512 * x1 / w,
        512 * y1 / h,
        512 * x2 / w,
        512 * y2 / h,
    ),
    "moved": lambda x1, y1, x2, y2, w, h: (x1 + 30, y1 - 20, x2 + 30, y2 - 20),
    "half the px": lambda x1, y1, x2, y2, w, h: (x1 / 2, y1 / 2, x2 / 2, y2 / 2),
    "mirrored": lambda x1, y1, x2, y2, w, h: (w - x2, y1, w - x1, y2),
}


def predicted(change, side):
    true = lesions(side)
    given = (true[name] for name in (*EDGES, "width", "height"))
    edges = dict(zip(EDGES, change(*given), strict=True))
    return true.assign(**edges, score=np.linspace(0.5, 1, LESIONS))


@pytest.mark.parametrize("name", MISTAKES)
def test_boxes_that_match_far_better_by_another_reading_are_doubted(name):
    side = 1600 if name == "0 to 1000" else 400
    boxes = predicted(MISTAKES[name], side)
    for ranks, figure in ((True, "AP50"), (False, "F1 of boxes")):  # of which one exists
        (said,) = tables.doubts(boxes, lesions(side), lesions(side), ranks=ranks)
        assert float(said.split()[0]) > 0.9  # by that reading
        assert figure in said


def test_boxes_that_match_or_match_by_no_reading_or_are_few_are_not_doubted():
    right = predicted(lambda x1, y1, x2, y2, w, h: (x1, y1, x2, y2), 1600)
    truth, turned = lesions(1600), predicted(MISTAKES["y before x"], 1600)
    corner = np.random.default_rng(10).uniform(0, 700, (LESIONS, 2))
    anywhere = right.assign(**dict(zip(EDGES, np.hstack([corner, corner + 150]).T, strict=True)))
    pairs = [(right, truth), (anywhere, truth), (right[:0], truth), (right, truth[:0])]
    for boxes, true in (*pairs, (turned, truth[:4])):
        assert tables.doubts(boxes, true, truth) == []


def with_patients(names, **columns):
    """Two systems on 60 images of 20 patients, and the truth with more columns."""
    rng = np.random.default_rng(4)
    label = np.arange(60) % 3 == 0
    systems = {name: pd.Series(rng.random(60) * 0.6 + 0.3 * label, names) for name in "AB"}
    return systems, pd.DataFrame({"image_id": names, "label": label.astype(int), **columns})


PEOPLE = np.repeat(np.arange(20), 3)


def n_patients(systems, truth, **options):
    return cxr_compare.compare(systems, truth=truth, replicates=100, **options).answer.counts.get(
        "patients"
    )


def test_a_patient_after_whom_several_files_are_named_is_a_patient():
    names = [f"{view}/{person:03d}.png" for person in range(20) for view in ("AP", "PA", "LL")]
    assert n_patients(*with_patients(names, patient_id=PEOPLE)) == 20
    single = [f"{number:03d}.png" for number in range(60)]  # one image each: names of images
    assert n_patients(*with_patients(single, patient_id=np.arange(60))) is None


def test_patients_that_divide_those_of_the_truth_are_refused_and_those_that_join_them_count():
    names = [f"i{number:02d}" for number in range(60)]
    systems, truth = with_patients(names, patient_id=PEOPLE)
    with pytest.raises(InputError, match="'0' and '1' are of one patient, '0', in truth"):
        n_patients(systems, truth, patients=pd.Series(np.arange(60), names))
    assert n_patients(systems, truth, patients=pd.Series(PEOPLE // 2, names)) == 10
