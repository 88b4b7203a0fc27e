"""Boxes that cannot be used: an image with such a box is asked about or unknown, never negative."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.boxes import upright_boxes
from cxr_compare.data_prep.contracts.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import cxr_compare
from cxr_compare.data_prep.images.image import read_image
from tests.data_prep.sources.answers import reader

WIDTH, HEIGHT = 100, 120
N_BOXES = 12
# Left, top, width and height of the lesion of each positive image.
LESIONS = [(64 + n, 70 + n, 20, 25) for n in range(N_BOXES)]
NAMES = [f"p{n:02d}_0" for n in range(2 * N_BOXES)]  # the first half has a lesion each


def write_images(folder: Path, names: list[str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(names):
        pixels = np.full((HEIGHT, WIDTH), 60 + n, np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def write_coco(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    """Write a COCO file; annotation n is of image n."""
    images = [
        {"id": n, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        for n, name in enumerate(NAMES)
    ]
    items = [{"id": n, "image_id": n, "category_id": 1, **a} for n, a in enumerate(annotations)]
    content = {
        "images": images,
        "annotations": items,
        "categories": [{"id": 1, "name": "opacity"}],
    }
    write_images(folder)
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def write_yolo(folder: Path, lines: list[str]) -> Path:
    write_images(folder)
    for n, name in enumerate(NAMES):
        line = f"0 {lines[n]}\n" if n < N_BOXES else ""
        (folder / f"{name}.txt").write_text(line)
    (folder / "data.yaml").write_text("names: [opacity]\n")
    return folder


def write_voc(folder: Path, corners: list[tuple[float, ...]], more: str = "") -> Path:
    write_images(folder)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    for n, name in enumerate(NAMES):
        item = ""
        if n < len(corners):
            tags = zip(("xmin", "ymin", "xmax", "ymax"), corners[n], strict=True)
            edges = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
            item = f"<object><name>opacity</name><bndbox>{edges}</bndbox>{more}</object>"
        xml = f"<annotation><filename>{name}.png</filename>{size}{item}</annotation>"
        (folder / f"{name}.xml").write_text(xml)
    return folder


def write_table(folder: Path, rows: list[tuple[float, ...]], columns: str) -> Path:
    """Write a table and its images; the first rows have boxes."""
    write_images(folder / "images")
    cells = [",".join(map(str, rows[n])) if n < N_BOXES else ",,," for n in range(len(NAMES))]
    labels = ["opacity"] * N_BOXES + ["normal"] * N_BOXES
    lines = [f"{name}.png,{a},{b}" for name, a, b in zip(NAMES, labels, cells, strict=True)]
    (folder / "labels.csv").write_text("\n".join([f"file,label,{columns}", *lines]) + "\n")
    return folder


def prepare(source: Path, out: Path, format: str, **options: Any) -> Any:  # noqa: A002
    paths = [source, out]
    if format == "table":
        paths = [source / "labels.csv", source / "images", out]
    return cxr_compare.prepare(*paths, format=format, workers=0, **options)


def corners_of(dataset: Any) -> list[list[float]]:
    boxes = dataset.boxes.sort_values("image_id")
    rows: list[list[float]] = boxes[["x1", "y1", "x2", "y2"]].to_numpy().round(3).tolist()
    return rows


def counts(dataset: Any) -> tuple[int, int]:
    labels = dataset.labels(dataset.targets["opacity"])
    return int((labels == 1).sum()), int((labels == 0).sum())


CORNERS = [(x, y, x + w, y + h) for x, y, w, h in LESIONS]
IN_SHARES = [
    ((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT) for x, y, w, h in LESIONS
]


def shares_of_corners(corners: tuple[float, ...]) -> str:
    sides = (WIDTH, HEIGHT, WIDTH, HEIGHT)
    return " ".join(f"{value / side:.6f}" for value, side in zip(corners, sides, strict=True))


def yolo_line(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def write_misunderstood(kind: str, folder: Path) -> tuple[Path, str]:
    """Write a source of 12 positive images, no box of which is stated as its format says."""
    if kind.startswith("coco"):
        values: dict[str, list[Any]] = {
            "coco corners": [list(corners) for corners in CORNERS],
            "coco null": [None] * N_BOXES,
            "coco empty": [[]] * N_BOXES,
            "coco five numbers": [[*lesion, 30.0] for lesion in LESIONS],
            "coco shares": [[0.1, 0.2, 0.3, 0.4]] * (N_BOXES - 1) + [[0.8, 0.8, 0.21, 0.2]],
            "coco mask of another size": [None] * N_BOXES,
            "coco larger frame": [[4 * value for value in lesion] for lesion in LESIONS],
            "coco without size": [[x, y, 0, h] for x, y, _, h in LESIONS],
        }
        annotations: list[dict[str, Any]] = [{"bbox": value} for value in values[kind]]
        if "mask" in kind:
            annotations = [{"segmentation": {"size": [4, 4], "counts": [5, 2, 9]}}] * N_BOXES
        return write_coco(folder, annotations), "coco"
    if kind == "yolo corners":
        return write_yolo(folder, [shares_of_corners(corners) for corners in CORNERS]), "yolo"
    if kind == "yolo pixels":
        return write_yolo(folder, [yolo_line(lesion) for lesion in LESIONS]), "yolo"
    if kind == "yolo four values":
        return write_yolo(folder, ["0.5 0.5 0.2"] * N_BOXES), "yolo"
    if kind == "voc widths":
        return write_voc(folder, LESIONS), "voc"
    if kind == "voc no numbers":
        return write_voc(folder, [("left", 1, 2, 3)] * N_BOXES), "voc"
    columns = {"table corners": "x,y,width,height", "table widths": "xmin,ymin,xmax,ymax"}[kind]
    rows = CORNERS if kind == "table corners" else LESIONS
    return write_table(folder, rows, columns), "table"


@pytest.mark.parametrize(
    ("kind", "question"),
    [
        ("coco corners", "are these corners"),
        ("coco null", r"annotations\[0\].*null"),
        ("coco empty", r"annotations\[0\]"),
        ("coco five numbers", r"annotations\[0\]"),
        ("coco shares", "are these shares"),
        ("coco larger frame", "larger image"),
        ("coco mask of another size", r"annotations\[0\].*mask"),
        ("coco without size", "p00_0"),
        ("yolo corners", "are these corners"),
        ("yolo pixels", "are these pixels"),
        ("yolo four values", "line 1"),
        ("voc widths", "are these widths and heights"),
        ("voc no numbers", "object 1"),
        ("table corners", "are these corners.*box_form=xyxy"),
        ("table widths", "are these widths and heights.*box_form=xywh"),
    ],
)
def test_boxes_that_are_not_understood_stop_before_anything_is_written(kind, question, tmp_path):
    source, format_name = write_misunderstood(kind, tmp_path / "in")
    with pytest.raises(InputError, match=question):
        prepare(source, tmp_path / "out", format_name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [1, 2])
def test_below_a_tenth_the_image_is_unknown_and_above_all_is_refused(wrong, tmp_path):
    annotations = [{"bbox": list(lesion)} for lesion in LESIONS]
    for annotation in annotations[:wrong]:
        annotation["bbox"] = None
    source = write_coco(tmp_path / "in", annotations)
    if wrong == 2:  # of 12
        with pytest.raises(InputError, match="2 boxes of 12"):
            prepare(source, tmp_path / "out", "coco")
        return
    dataset = prepare(source, tmp_path / "out", "coco")
    assert counts(dataset) == (N_BOXES - 1, N_BOXES)
    assert "p00_0" not in set(dataset.images["image_id"])
    assert dataset.summary.excluded["path"].tolist() == ["p00_0.png"]


def test_corners_of_which_some_fit_are_not_half_kept(tmp_path):
    near = [[5, 6, 20, 25]] * 10 + [list(corners) for corners in CORNERS[:2]]
    source = write_coco(tmp_path / "in", [{"bbox": bbox} for bbox in near])
    with pytest.raises(InputError, match="are these corners"):
        prepare(source, tmp_path / "out", "coco")


@pytest.mark.parametrize("shape", ["object", "mask", "run lengths", "polygon"])
def test_boxes_of_other_shapes_are_read(shape, tmp_path):
    from pycocotools import mask

    annotations: list[dict[str, Any]] = []
    for x, y, w, h in LESIONS:
        area = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        area[y : y + h, x : x + w] = 1
        encoded = mask.encode(area)
        flat = area.reshape(-1, order="F")
        changes = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *changes, flat.size]).tolist()
        size = [HEIGHT, WIDTH]
        annotations.append(
            {
                "object": {"bbox": {"x": x, "y": y, "width": w, "height": h}},
                "mask": {"segmentation": {"size": size, "counts": encoded["counts"].decode()}},
                "run lengths": {"bbox": [], "segmentation": {"size": size, "counts": runs}},
                "polygon": {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]},
            }[shape]
        )
    dataset = prepare(write_coco(tmp_path / "in", annotations), tmp_path / "out", "coco")
    assert corners_of(dataset) == [list(map(float, corners)) for corners in CORNERS]
    assert counts(dataset) == (N_BOXES, N_BOXES)
    assert any("box around" in note for note in dataset.summary.notes) is (shape != "object")


def test_a_box_that_leaves_its_image_a_little_is_cut_and_counted(tmp_path):
    bboxes = [list(lesion) for lesion in LESIONS]
    bboxes[0] = [-3, 10, 30, 40]
    bboxes[1] = [80, 100, 22, 22]  # ends at 102, 122
    dataset = prepare(
        write_coco(tmp_path / "in", [{"bbox": b} for b in bboxes]), tmp_path / "out", "coco"
    )
    assert corners_of(dataset)[:2] == [[0, 10, 27, 50], [80, 100, 100, 120]]
    assert any(note.startswith("2 boxes left the image") for note in dataset.summary.notes)


def test_a_true_box_without_size_makes_its_image_unknown(tmp_path):
    lines = [yolo_line(values) for values in IN_SHARES]
    lines[0] = "0.5 0.5 0 0.2"
    dataset = prepare(write_yolo(tmp_path / "in", lines), tmp_path / "out", "yolo")
    assert counts(dataset) == (N_BOXES - 1, N_BOXES)
    assert "p00_0" not in set(dataset.images["image_id"])


def test_voc_boxes_drawn_from_any_corner_are_sorted(tmp_path):
    drawn = [(x2, y2, x1, y1) for x1, y1, x2, y2 in CORNERS]
    drawn[0] = (CORNERS[0][0], CORNERS[0][3], CORNERS[0][2], CORNERS[0][1])
    dataset = prepare(write_voc(tmp_path / "in", drawn), tmp_path / "out", "voc")
    assert corners_of(dataset) == [list(map(float, corners)) for corners in CORNERS]


@pytest.mark.parametrize("format_name", ["coco", "voc"])
def test_turned_boxes_of_cvat_get_the_upright_box_around_them(format_name, tmp_path):
    box = (20, 40, 60, 20)  # turned by 90 degrees about 50, 50
    if format_name == "coco":
        turned = {"bbox": list(box), "attributes": {"rotation": 90.0}}
        source = write_coco(tmp_path / "in", [turned] * N_BOXES)
    else:
        attribute = "<attribute><name>rotation</name><value>90.0</value></attribute>"
        more = f"<attributes>{attribute}</attributes>"
        source = write_voc(tmp_path / "in", [(20, 40, 80, 60)] * N_BOXES, more)
    dataset = prepare(source, tmp_path / "out", format_name)
    assert corners_of(dataset) == [[40, 20, 60, 80]] * N_BOXES


EXIF_ORIENTATION = 0x0112


@given(
    orientation=st.integers(1, 8),
    left=st.integers(0, 40),
    top=st.integers(0, 50),
    width=st.integers(1, 20),
    height=st.integers(1, 20),
)
def test_boxes_turn_as_exif_turns_the_pixels(orientation, left, top, width, height):
    pixels = np.zeros((71, 61), np.uint8)
    pixels[top : top + height, left : left + width] = 255
    image = Image.fromarray(pixels)
    image.getexif()[EXIF_ORIENTATION] = orientation
    ys, xs = np.nonzero(np.asarray(ImageOps.exif_transpose(image)))
    turned = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    corners = np.array([[left, top, left + width, top + height]], np.float64)
    assert upright_boxes(corners, (61, 71), orientation).tolist() == [turned]


@pytest.mark.parametrize(
    ("format_name", "orientation"),
    [("coco", 1), ("coco", 3), ("coco", 6), ("yolo", 6), ("voc", 8), ("table", 6)],
)
def test_boxes_of_raw_pixels_lie_on_the_lesion_of_the_turned_image(
    format_name, orientation, tmp_path
):
    """The one lesion is white, on an image that is not square."""
    source = tmp_path / "in"
    x, y, w, h = 10, 30, 40, 20
    if format_name == "coco":
        write_coco(source, [{"bbox": [x, y, w, h]}])
    elif format_name == "voc":
        write_voc(source, [(x, y, x + w, y + h)])
    elif format_name == "table":
        write_table(source, [(x, y, w, h)] * N_BOXES, "x,y,width,height")
        source /= "images"
    else:
        line = yolo_line(((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT))
        write_yolo(source, [line] * N_BOXES)
    path = source / f"{NAMES[0]}.png"
    with Image.open(path) as file:
        pixels = np.asarray(file).copy()
    pixels[y : y + h, x : x + w] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[EXIF_ORIENTATION] = orientation
    image.save(path, exif=exif)
    dataset = prepare(tmp_path / "in", tmp_path / "out", format_name, raw_boxes=True)
    boxes = dataset.boxes.set_index("image_id")
    x1, y1, x2, y2 = boxes.loc[NAMES[0], ["x1", "y1", "x2", "y2"]].to_numpy().round().astype(int)
    upright = read_image(path).pixels
    assert (upright[y1:y2, x1:x2] == 255).all()
    assert (upright == 255).sum() == (x2 - x1) * (y2 - y1)


def test_images_that_exif_turns_are_counted(tmp_path):
    source = write_yolo(tmp_path / "in", [yolo_line(values) for values in IN_SHARES])
    for name in NAMES[:3]:
        image = Image.open(source / f"{name}.png")
        image.getexif()[EXIF_ORIENTATION] = 3
        image.save(source / f"{name}.png", exif=image.getexif())
    notes = prepare(source, tmp_path / "out", "yolo").summary.notes
    assert any(note.startswith("3 images were turned as their EXIF says; boxes") for note in notes)


@settings(max_examples=20, deadline=None)
@given(bbox=st.one_of(st.none(), st.lists(st.one_of(st.none(), st.floats(), st.text())), st.text()))
def test_any_bbox_gives_a_box_or_leaves_the_image_out(bbox, tmp_path_factory):
    annotations = [{"bbox": bbox}, *({"bbox": list(lesion)} for lesion in LESIONS[1:])]
    folder = tmp_path_factory.mktemp("any")
    tables = reader("coco")(write_coco(folder, annotations))
    absent = tables.findings.loc[tables.findings["state"] == "absent", "image_id"]
    assert NAMES[0] not in set(absent)


def test_turned_results_of_cvat_are_read_from_python():
    truth = [{"image_id": 1, "bbox": [20, 40, 60, 20], "attributes": {"rotation": 90.0}}]
    table = cxr_compare.boxes_table(truth)
    assert table[["x1", "y1", "x2", "y2"]].to_numpy().round(6).tolist() == [[40, 20, 60, 80]]
    as_object = [{"image_id": 1, "bbox": {"x": 1, "y": 2, "width": 3, "height": 4}}]
    assert cxr_compare.boxes_table(as_object)["x2"].tolist() == [4]


def test_corners_in_yolo_predictions_are_asked_about(tmp_path):
    labels = [yolo_line(values) for values in IN_SHARES]
    source = write_yolo(tmp_path / "in", labels)
    dataset = prepare(source, tmp_path / "set", "yolo", patient_pattern=r"^(p\d+)_")
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for name, corners in zip(NAMES, CORNERS, strict=False):
        line = f"0 {shares_of_corners(corners)} 0.9\n"
        (predictions / f"{name}.txt").write_text(line)
    with pytest.raises(InputError, match="are these corners"):
        cxr_compare.compare({"A": predictions}, data=dataset.folder)
    assert isinstance(dataset.boxes, pd.DataFrame)


def test_corners_that_all_fit_are_asked_about_until_the_user_answers(tmp_path):
    corners = [[10, 12, 41, 44 + n] for n in range(N_BOXES)]
    source = write_coco(tmp_path / "in", [{"bbox": bbox} for bbox in corners])
    with pytest.raises(InputError, match=r"are these corners.*box_form=xyxy.*box_form=xywh"):
        prepare(source, tmp_path / "out", "coco")
    for form, x2 in (("xyxy", 41), ("xywh", 51)):
        answer = (f"box_form={form}",)
        dataset = prepare(source, tmp_path / form, "coco", columns=answer)
        assert set(dataset.boxes["x2"]) == {x2}


@pytest.mark.parametrize(("n_boxes", "side"), [(1, 1024), (N_BOXES, 224)])
def test_per_cent_that_fit_as_px_are_asked_about_until_the_user_answers(n_boxes, side, tmp_path):
    names = [f"{n}.png" for n in range(N_BOXES)]
    images = [
        {"id": n, "file_name": name, "width": side, "height": side} for n, name in enumerate(names)
    ]
    marks = [
        {"image_id": n, "category_id": 1, "bbox": [20 + n, 30, 40, 50]} for n in range(n_boxes)
    ]
    coco = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "opacity"}]}
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(coco))
    scores = {"A": pd.Series(np.linspace(0, 1, len(names)), names)}
    with pytest.raises(InputError, match=r"per cent.*box_unit=percent.*box_form=xywh"):
        cxr_compare.compare(scores, truth=truth)
    for answer in ("box_unit=percent", "box_form=xywh"):
        result = cxr_compare.compare(scores, truth=truth, columns=answer, replicates=100)
        assert result.answer.counts["positive"] == n_boxes


def test_large_lesions_are_no_corners(tmp_path):
    rng = np.random.default_rng(3)
    sizes = rng.integers((20, 22, 40, 50), (30, 40, 65, 75), (N_BOXES, 4)).tolist()
    source = write_coco(tmp_path / "in", [{"bbox": bbox} for bbox in sizes])
    dataset = prepare(source, tmp_path / "out", "coco")
    assert corners_of(dataset)[0] == [*sizes[0][:2], sizes[0][0] + sizes[0][2], sum(sizes[0][1::2])]


@pytest.mark.parametrize("n_wrong", [1, 4, 12])
def test_a_bbox_must_be_around_its_outline(n_wrong, tmp_path):
    annotations: list[dict[str, Any]] = []
    for n, (x, y, w, h) in enumerate(LESIONS):
        outline = [x, y, x + w, y, x + w, y + h, x, y + h]
        below = HEIGHT - y - h if n < n_wrong else y + 0.5
        annotations.append({"bbox": [x, below, w, h], "segmentation": [outline]})
    source = write_coco(tmp_path / "in", annotations)
    if n_wrong > 1:
        with pytest.raises(InputError, match=rf"p00_0.*{n_wrong} boxes of 12"):
            prepare(source, tmp_path / "out", "coco")
        return
    dataset = prepare(source, tmp_path / "out", "coco")
    assert counts(dataset) == (N_BOXES - 1, N_BOXES)
    assert dataset.summary.excluded["path"].tolist() == ["p00_0.png"]


@pytest.mark.parametrize(("n_wrong", "axes"), [(1, (0,)), (4, (1,)), (11, (0, 1)), (12, (0, 1))])
def test_corners_in_another_order_are_sorted_where_they_move_together(n_wrong, axes, tmp_path):
    drawn = [list(corners) for corners in CORNERS]
    for corners in drawn[:n_wrong]:
        for axis in axes:
            corners[axis], corners[axis + 2] = corners[axis + 2], corners[axis]
    dataset = prepare(write_voc(tmp_path / "in", drawn), tmp_path / "out", "voc")
    assert corners_of(dataset) == [list(map(float, corners)) for corners in CORNERS]
    assert any("sorted" in note for note in dataset.summary.notes)


def compare_with_truth(
    folder: Path, annotations: list[dict[str, Any]], predicted: Any, **options: Any
) -> float:
    """Write COCO truth and results, and return AP50 by `cxr compare --truth`."""
    source = write_coco(folder / "truth", annotations)
    results = [
        {"image_id": n, "category_id": 1, "score": 0.9 - 0.03 * n, **entry}
        for n, entry in enumerate(predicted)
    ]
    (folder / "a.json").write_text(json.dumps(results))
    result = cxr_compare.compare(
        {"A": folder / "a.json"}, truth=source / "a.json", replicates=100, **options
    ).to_frame()
    value: float = result.set_index("metric").estimate["ap50"]
    return value


def test_truth_in_files_is_checked_turned_and_cut_as_by_prepare(tmp_path):
    boxes = [{"bbox": list(lesion)} for lesion in LESIONS]
    wrong = [{"bbox": list(corners)} for corners in CORNERS]
    with pytest.raises(InputError, match="are these corners"):
        compare_with_truth(tmp_path / "corners", wrong, boxes)
    turned = [{"bbox": [20, 40, 60, 20], "attributes": {"rotation": 90.0}}] * N_BOXES
    upright = [{"bbox": [40, 20, 20, 60]}] * N_BOXES
    assert compare_with_truth(tmp_path / "turned", turned, upright) == pytest.approx(1)
    assert compare_with_truth(tmp_path / "both", turned, turned) == pytest.approx(1)
    beyond = [{"bbox": [64, 70, 39, 25]}, *boxes[1:]]
    assert compare_with_truth(tmp_path / "cut", beyond, beyond) == pytest.approx(1)


def test_corners_that_fit_are_asked_about_in_truth_and_predictions_until_answered(tmp_path):
    sizes = [(5 + n, 6 + 2 * n, 20 + n % 3, 30 - n % 4) for n in range(N_BOXES)]
    right = [{"bbox": list(size)} for size in sizes]
    corners = [{"bbox": [x, y, x + w, y + h]} for x, y, w, h in sizes]
    with pytest.raises(InputError, match=r"are these corners.*columns box_form=xyxy"):
        compare_with_truth(tmp_path / "truth", corners, right)
    answered = compare_with_truth(tmp_path / "t", corners, right, columns=["box_form=xyxy"])
    assert answered == pytest.approx(1)
    with pytest.raises(InputError, match=r"are these corners.*A\.box_form=xyxy"):
        compare_with_truth(tmp_path / "results", right, corners)
    answered = compare_with_truth(tmp_path / "r", right, corners, columns=["A.box_form=xyxy"])
    assert answered == pytest.approx(1)


def test_a_predicted_box_without_size_is_left_out_and_one_of_null_is_refused(tmp_path):
    boxes = [{"bbox": list(lesion)} for lesion in LESIONS]
    empty = [*boxes, {"bbox": [5, 5, 0, 9]}]
    assert compare_with_truth(tmp_path / "empty", boxes, empty) == pytest.approx(1)
    with pytest.raises(InputError, match="entry 12"):
        compare_with_truth(tmp_path / "null", boxes, [*boxes, {"bbox": None}])
