"""Labels, boxes and predictions in the forms that people have: read as meant, or refused.

A case of ``cases/inputs.json`` has recipes of `tests/evaluation/built_inputs.py` for what `compare`
takes. All are made of one base of 24 images, so that most give the figures of the base.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import sources, tables
from tests.evaluation.built_inputs import EDGES, Inputs

CASES = json.loads(
    (Path(__file__).parents[1] / "cases" / "inputs.json").read_text(encoding="utf-8")
)
TRUTHS = CASES["truths"]
GIVEN = ("boxes", "patients")


def figures(read):
    """AUROC and AP50 of the one system, of the images that are evaluated; None where undefined."""
    system, images = read["systems"]["A"], read["evaluated"]
    labels = [read["labels"][image] for image in images]
    if "scores" in system:
        return metrics.auroc(labels, [system["scores"][image] for image in images]), None
    boxes = pd.DataFrame(system["boxes"], columns=["image_id", *EDGES, "score"])
    if len(boxes) and boxes["score"].isna().all():
        return None, None
    scores = boxes.groupby("image_id")["score"].max().reindex(images).fillna(0)
    true = pd.DataFrame(read["true_boxes"], columns=["image_id", *EDGES])
    boxed = [image for image in read["boxed"] if image in images]
    boxes, true = (table[table["image_id"].isin(boxed)] for table in (boxes, true))
    ap50 = metrics.box_average_precision(boxes, true, boxed)["ap50"] if len(true) else None
    return metrics.auroc(labels, scores.to_numpy()), ap50


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is left out is said
@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in CASES["cases"]])
def test_an_input_gives_the_figures_of_its_case_or_is_refused(case, tmp_path):
    inputs = Inputs(CASES, tmp_path)
    truth = inputs.build(TRUTHS.get(str(case["truth"]), case["truth"]))
    system = inputs.build(case["system"])
    options = {name: inputs.build(case[name]) for name in GIVEN if name in case}
    options["columns"] = case.get("columns", ())
    read, doubted = tables.read_with_doubts(truth, {"A": system}, **options)
    if "refused" in case:
        assert isinstance(read, tuple), figures(read)
        assert "\n" not in read[1]
        assert [part for part in case["refused"] if part not in read[1]] == []
        return
    assert isinstance(read, dict), read
    expected = CASES["figures"].get(case.get("same"), case)
    found = dict(zip(("auroc", "ap50"), figures(read), strict=True))
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)
    assert doubted == (["A"] if case.get("doubted") else [])


def test_the_size_of_an_image_is_read_from_its_header_alone(tmp_path):
    """Shares become px although the pixels of the files are cut off."""
    for image, size in (("a", (200, 100)), ("b", (80, 400))):
        file = tmp_path / f"{image}.png"
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[:60])
    labels = tmp_path / "labels"
    labels.mkdir()
    for image in ("a", "b"):
        (labels / f"{image}.txt").write_text("0 0.5 0.5 0.5 0.25 0.9\n")
    truth = pd.DataFrame({"image_id": ["a", "b"], "label": [1, 0]})
    read = tables.read(truth, {"A": labels}, images=str(tmp_path))
    assert read["systems"]["A"]["boxes"] == [
        ["a", 50, 37.5, 150, 62.5, 0.9],
        ["b", 20, 150, 60, 250, 0.9],
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_usual_order_of_yolo_lines_is_kept_if_boxes_leave_their_images(seed, tmp_path):
    """Detectors that do not clip let up to a third of their boxes leave the image."""
    generator = np.random.default_rng(seed)
    sides = generator.uniform(0.05, 0.4, (30, 2))
    centres = generator.uniform(sides / 2, 1 - sides / 2)
    centres[:10, 0] = 1 - sides[:10, 0] / 4
    scores = generator.uniform(0.01, 1, 30)
    lines = [
        f"0 {x} {y} {w} {h} {score}"
        for (x, y), (w, h), score in zip(centres, sides, scores, strict=True)
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    truth = pd.DataFrame({"image_id": ["a"], "label": [1], "width": [100], "height": [100]})
    read = tables.read(truth, {"A": tmp_path})
    found = sorted(row[-1] for row in read["systems"]["A"]["boxes"])
    assert found == pytest.approx(sorted(scores))


RNG = np.random.default_rng(0)
Y = pd.Series(RNG.integers(0, 2, 80))
S = pd.Series(np.clip(0.4 * Y + 0.6 * RNG.random(80), 0, 1))
PATIENTS = pd.Series(np.arange(80) // 2)
OF_ARRAYS = {
    "auroc": lambda y, s, p: metrics.auroc(y, s),
    "average_precision": lambda y, s, p: metrics.average_precision(y, s),
    "classification_metrics": lambda y, s, p: metrics.classification_metrics(y, s, 0.5),
    "confusion_counts": lambda y, s, p: metrics.confusion_counts(y, s, 0.5),
    "auroc_difference": lambda y, s, p: metrics.auroc_difference(y, s, s, p).estimate,
}
OF_IMAGES = {
    "estimate": lambda y, s, p: metrics.estimate("auroc", y, s, patients=p).estimate,
    "compare": lambda y, s, p: (
        cxr_compare.compare({"A": s}, truth=y, patients=p, replicates=100)
        .to_frame()
        .set_index("metric")
        .estimate["auroc"]
    ),
}
FUNCTIONS = OF_ARRAYS | OF_IMAGES


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_rows_in_another_order_give_the_same_figure(name):
    function = OF_IMAGES[name]
    expected = function(Y, S, PATIENTS)
    assert function(Y, S[::-1], PATIENTS) == expected  # also a RangeIndex
    assert function(Y, S.sample(frac=1, random_state=1), PATIENTS[::-1]) == expected
    ids = [f"image {number}" for number in range(80)]
    y, s, patients = (series.set_axis(ids) for series in (Y, S, PATIENTS))
    assert function(y, s[::-1], patients.sample(frac=1, random_state=2)) == expected


ORDER = np.random.default_rng(1).permutation(80)
BY_ID = pd.Series(S.to_numpy(), ORDER)  # indexed by image id, which is a number


def truth_with_ids(ids, y=Y):
    return pd.DataFrame({"image_id": ids, "label": y})


def auroc(scores, truth, **options):
    result = cxr_compare.compare({"A": scores}, truth=truth, replicates=100, **options)
    return result.to_frame().set_index("metric").estimate["auroc"]


@pytest.mark.parametrize(
    ("truth", "scores"),
    [
        (truth_with_ids(ORDER), BY_ID),
        (truth_with_ids(ORDER), BY_ID.sort_index()),
        (truth_with_ids(ORDER), S),
        (truth_with_ids(ORDER), BY_ID[:70]),
        (truth_with_ids([str(number) for number in ORDER]), BY_ID),
        (truth_with_ids([f"{number:04d}" for number in ORDER]), BY_ID),
        (truth_with_ids(ORDER.astype(float)), BY_ID),
    ],
    ids=["by id", "sorted", "rows", "some", "texts", "zeros in front", "floats"],
)
def test_an_index_that_may_be_rows_or_image_ids_is_asked_about(truth, scores):
    with pytest.raises(InputError, match=r"^A: "):
        auroc(scores, truth, images="common")


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (S.to_numpy(), truth_with_ids(ORDER)),
        (pd.DataFrame({"image_id": ORDER, "score": S}), truth_with_ids(ORDER)),
        (BY_ID.sort_index(), Y.set_axis(ORDER)),
        (S, truth_with_ids(range(80))),  # rows and ids are the same
        (S, truth_with_ids(ORDER + 1)),  # 0 is no id
        (BY_ID.set_axis(ORDER + 1).sort_index(), truth_with_ids(ORDER + 1)),  # 80 is no row
    ],
    ids=["array", "frame", "two Series", "equal", "rows", "ids"],
)
def test_an_index_with_one_meaning_is_not_asked_about(scores, truth):
    assert auroc(scores, truth) == pytest.approx(metrics.auroc(Y, S))


@pytest.mark.parametrize("missing", [None, pd.NA])
def test_a_missing_image_id_is_named_by_its_row(missing):
    ids = [f"img{number}" for number in range(80)]
    gap = [*ids[:3], missing, *ids[4:]]
    truth = Y.set_axis(ids)
    boxes = pd.DataFrame({"image_id": gap, "x1": 1, "y1": 1, "x2": 9, "y2": 9})
    for where, scores, labels, options in (
        ("truth", S.to_numpy(), truth_with_ids(gap), {}),
        ("truth", S.to_numpy(), Y.set_axis(gap), {}),
        ("truth", S.to_numpy(), boxes.assign(label=1), {}),
        ("A", S.set_axis(gap), truth, {}),
        ("A", pd.DataFrame({"image_id": gap, "score": S}), truth, {}),
        ("A", boxes.assign(score=0.5), truth, {}),
        ("boxes", S.to_numpy(), truth, {"boxes": boxes}),
        ("patients", S.to_numpy(), truth, {"patients": PATIENTS.set_axis(gap)}),
        ("patients", S.to_numpy(), truth, {"patients": truth_with_ids(gap).set_axis(
            ["image_id", "patient_id"], axis=1)}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{where}: row 3: .*image.id"):
            auroc(scores, labels, **options)


WHOLE = {"px": None, "share": 1, "percent": 100, "thousandth": 1000}
WRITTEN = list(itertools.product(["xyxy", "xywh", "cxcywh"], WHOLE))
# How formats read boxes, and whether their columns name the four numbers.
READ_AS = {
    "COCO": ("xywh", "px", False),
    "YOLO": ("cxcywh", "share", True),
    "VOC": ("xyxy", "px", False),
    "table of corners": ("xyxy", "px", True),
    "table of sides": ("xywh", "px", True),
    "table of centres": ("cxcywh", "px", True),
    "table of shares": ("xyxy", "share", True),
    "table of sides in shares": ("xywh", "share", True),
}


def test_the_100_best_boxes_of_an_image_count_in_whatever_order_they_stand():
    n = 130
    truth = pd.DataFrame({"image_id": ["a", "b"], "label": [1, 0], "width": 1000, "height": 1000})
    corners = {"x1": np.arange(n), "y1": 200, "x2": np.arange(n) + 500, "y2": 800}
    scores = np.random.default_rng(0).permutation(n) / n
    boxes = pd.DataFrame({"image_id": ["a"] * (n - 1) + ["b"], **corners, "score": scores})
    read = tables.read(truth, {"D": boxes}, boxes=boxes.loc[:0, ["image_id", *EDGES]])
    counted = [score for image, *_, score in read["systems"]["D"]["boxes"] if image == "a"]
    assert sorted(counted) == pytest.approx(np.sort(scores[:-1])[-100:])
    assert len(read["systems"]["D"]["boxes"]) == 101


def drawn(seed, shortest, longest):
    """Corners of 40 lesions of 5 to 40 % of the sides, and the sizes of their images."""
    random = np.random.default_rng(seed)
    sizes = random.integers(shortest, longest, (40, 2)).astype(float)
    sides = random.uniform(0.05, 0.4, (40, 2)) * sizes
    start = random.uniform(0, 1, (40, 2)) * (sizes - sides)
    return np.hstack([start, start + sides]), sizes


def written(corners, sizes, form, unit):
    first, second = corners[:, :2], corners[:, 2:]
    numbers = {
        "xyxy": [first, second],
        "xywh": [first, second - first],
        "cxcywh": [(first + second) / 2, second - first],
    }[form]
    scale = WHOLE[unit]
    return np.hstack(numbers) * (1 if scale is None else scale / np.hstack([sizes, sizes]))


@pytest.mark.parametrize(("form", "unit"), WRITTEN)
def test_a_box_that_is_read_as_it_was_written_is_itself(form, unit):
    for seed in range(2):
        corners, sizes = drawn(seed, 150, 4000)
        read = sources.check_boxes(
            written(corners, sizes, form, unit), sizes, form, unit, False, True
        )
        np.testing.assert_allclose(read, corners, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reader", READ_AS)
@pytest.mark.parametrize(("form", "unit"), WRITTEN)
def test_a_box_in_a_form_that_nobody_stated_is_itself_or_refused(reader, form, unit):
    """Numbers to 1000 may be px of an image of 1,000 to 4,000 px, too: no reader can tell them."""
    sides = (4000, 8000) if unit == "thousandth" else (400, 2000)
    for seed in range(2):
        corners, sizes = drawn(seed, *sides)
        read = sources.check_boxes(written(corners, sizes, form, unit), sizes, *READ_AS[reader])
        if (form, unit) == READ_AS[reader][:2]:
            assert not isinstance(read, str), read
        if not isinstance(read, str):
            kept = ~np.isnan(read).any(axis=1)
            assert kept.mean() > 0.9
            np.testing.assert_allclose(read[kept], corners[kept], rtol=0, atol=1e-6)


def folder_of_images(folder, seed):
    """A folder of 24 images: their paths, a box in px of each, and their sizes."""
    random = np.random.default_rng(seed)
    sizes = random.integers(80, 240, (24, 2)).astype(float)
    sides = random.uniform(0.1, 0.4, (24, 2)) * sizes
    start = random.uniform(0, 1, (24, 2)) * (sizes - sides)
    paths = [f"i{n:02d}.png" for n in range(24)]
    for path, (width, height) in zip(paths, sizes.astype(int), strict=True):
        Image.new("L", (int(width), int(height))).save(folder / path)
    return paths, np.hstack([start, start + sides]), sizes


def write_coco(folder, paths, numbers, stated):
    sides = stated.astype(int).tolist()
    images = [
        {"id": n, "file_name": path, **dict(zip(("width", "height"), sides[n], strict=False))}
        for n, path in enumerate(paths)
    ]
    marks = [{"image_id": n, "category_id": 1, "bbox": box} for n, box in enumerate(numbers)]
    content = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "Mass"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return "coco", []


def write_table(folder, paths, numbers, stated):
    sizes = ",image_width,image_height" if stated.size else ""
    rows = [
        ",".join(map(str, [path, "mass", *box, *sides]))
        for path, box, sides in zip(paths, numbers, stated.astype(int).tolist(), strict=True)
    ]
    table = folder / "labels.csv"
    table.write_text("\n".join([f"file,label,x,y,width,height{sizes}", *rows]))
    return "table", [table]


def require_same(read, paths, corners):
    assert isinstance(read, dict), read
    assert list(read) == paths
    np.testing.assert_allclose(list(read.values()), corners, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("write", "scale"), [(write_coco, 0.5), (write_coco, 3.7), (write_table, 2)]
)
@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
def test_boxes_of_a_stated_size_are_those_of_the_file_or_refused(write, form, scale, tmp_path):
    paths, corners, sizes = folder_of_images(tmp_path, int(scale * 10))
    labelled = np.round(sizes * scale)
    numbers = written(corners * np.tile(labelled / sizes, 2), labelled, form, "px").tolist()
    name, tables = write(tmp_path, paths, numbers, labelled)
    read = sources.boxes_of(tmp_path, name, tables, [])
    if form == "xywh":
        require_same(read, paths, corners)
    else:
        assert isinstance(read, str)
        answered = sources.boxes_of(tmp_path, name, tables, [f"box_form={form}"])
        require_same(answered, paths, corners)


@pytest.mark.parametrize("write", [write_coco, write_table])
@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
def test_boxes_of_a_larger_image_that_nobody_states_are_refused(write, form, tmp_path):
    paths, corners, sizes = folder_of_images(tmp_path, 20)
    numbers = written(corners * 2, sizes, form, "px").tolist()
    name, tables = write(tmp_path, paths, numbers, np.zeros((len(paths), 0)))
    for answer in ([], [f"box_form={form}"]):
        assert isinstance(sources.boxes_of(tmp_path, name, tables, answer), str)
