"""Class of each box, in every way of giving predicted and true boxes: a name, one number, or no."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from tests.adapters.sets import table_set

COLUMNS = (
    "category_id", "class_id", "cls", "pred_class", "category_name", "type", "name", "lesion",
    "label", "class", "category", "labels", "class_name", "diagnosis", "pathology", "disease",
    "finding",
)  # fmt: skip
IDS = [f"p{number:02d}" for number in range(24)]
LABELS = pd.Series([1, 0] * 12, index=IDS, name="mass")
TRUE_BOXES = pd.DataFrame({"image_id": IDS[::2], "x1": 60.0, "y1": 60.0, "x2": 90.0, "y2": 90.0})
BOXES = TRUE_BOXES.assign(score=np.linspace(0.5, 0.8, 12))
KINDS = {
    "two numbers": [1, 2],
    "two texts": ["mass", "cardiomegaly"],
    "one text of another disease": ["cardiomegaly"],
    "one number": [1],
    "right text": ["mass"],
}
REFUSED = ("two numbers", "two texts", "one text of another disease")


def classes(kind):
    return np.resize(np.array(KINDS[kind], dtype=object), 12)


def compared(boxes, truth=LABELS, true_boxes=TRUE_BOXES, **options):
    options = {"policy": ["threshold=0.5"], "replicates": 100, **options}
    return cxr_compare.compare({"D": boxes}, truth=truth, boxes=true_boxes, **options)


def figures(result):
    by_metric = result.to_frame().set_index("metric")["estimate"]
    return by_metric[["auroc", "ap50"]].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    LABELS.rename_axis("image_id").reset_index().to_csv(folder / "labels.csv", index=False)
    TRUE_BOXES.to_csv(folder / "true.csv", index=False)
    states = {"mass": ["present", "absent"] * 12}
    roles = ["val"] * 12 + ["test"] * 12
    table_set(folder, IDS, states, width=100, height=100, split=roles)
    return folder


def of_frame(folder, table):
    return compared(table)


def of_csv(folder, table):
    table.to_csv(folder / "D.csv", index=False)
    return compared(folder / "D.csv", folder / "labels.csv", folder / "true.csv")


def on_data_set(folder, **options):
    """Figure of the boxes as image scores: the data set has labels alone."""
    result = compared(folder / "D.csv", None, None, data=folder / "data", **options)
    return result.to_frame().set_index("metric")["estimate"]["auroc"]


def of_data_set(folder, table):
    table.to_csv(folder / "D.csv", index=False)
    assert on_data_set(folder) == 1
    return compared(folder / "D.csv", folder / "labels.csv", folder / "true.csv")


def of_true_frame(folder, table):
    return compared(BOXES, true_boxes=table.drop(columns="score"))


def of_truth_frame(folder, table):
    rows = table.drop(columns="score")
    absent = pd.DataFrame({"image_id": IDS[1::2]})
    truth = pd.concat([rows.assign(target=1), absent.assign(target=0)])
    return compared(BOXES, truth, None)


def of_true_csv(folder, table):
    table.drop(columns="score").to_csv(folder / "true-2.csv", index=False)
    BOXES.to_csv(folder / "D.csv", index=False)
    return compared(folder / "D.csv", folder / "labels.csv", folder / "true-2.csv")


WAYS = [of_frame, of_csv, of_data_set, of_true_frame, of_true_csv]


@pytest.mark.parametrize(
    ("give", "column"),
    [
        *((of_frame, column) for column in COLUMNS),
        *((give, column) for give in WAYS[1:] for column in ("category_id", "finding")),
    ],
)
def test_boxes_of_another_class_in_any_column_are_never_of_the_only_finding(folder, give, column):
    for kind in REFUSED:
        with pytest.raises(InputError, match=f"{KINDS[kind][-1]}|{column}"):
            give(folder, BOXES.assign(**{column: classes(kind)}))


@pytest.mark.parametrize(
    ("give", "column"), [(of_frame, "name"), *((give, "category_id") for give in WAYS)]
)
def test_one_number_and_the_name_of_the_finding_are_the_finding(folder, give, column):
    for kind in ("one number", "right text"):
        assert figures(give(folder, BOXES.assign(**{column: classes(kind)}))) == [1, 1]


def of_torchvision(table, kinds):
    rows = table.assign(kind=kinds)
    outputs = []
    for image in IDS:
        of_image = rows[rows["image_id"] == image]
        found = {"scores": of_image["score"].tolist(), "labels": of_image["kind"].tolist()}
        outputs.append({"boxes": of_image[EDGES].to_numpy(), **found})
    return outputs


def of_ultralytics(table, kinds):
    names = dict(enumerate(dict.fromkeys(kinds)))
    numbers = {name: number for number, name in names.items()}
    results = []
    for output in of_torchvision(table, kinds):
        boxes = SimpleNamespace(
            xyxy=output["boxes"],
            conf=np.array(output["scores"]),
            cls=np.array([numbers[kind] for kind in output["labels"]]),
        )
        results.append(SimpleNamespace(boxes=boxes, names=names))
    return results


def of_coco(table, kinds):
    return [
        {
            "image_id": row.image_id,
            "category_id": kind,
            "bbox": [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1],
            "score": row.score,
        }
        for row, kind in zip(table.itertuples(), kinds, strict=True)
    ]


@pytest.mark.parametrize("outputs", [of_torchvision, of_ultralytics, of_coco])
def test_outputs_and_coco_results_of_another_class_are_refused(folder, outputs):
    for kind in KINDS:
        found = outputs(BOXES, classes(kind))
        drawn = outputs(BOXES.assign(score=1.0), classes(kind))
        calls = [(found, LABELS, TRUE_BOXES), (BOXES, LABELS, drawn)]
        if outputs is of_coco:
            (folder / "D.json").write_text(json.dumps(found))
            calls.append((folder / "D.json", folder / "labels.csv", folder / "true.csv"))
        for call in calls:
            if kind in REFUSED:
                with pytest.raises(InputError):
                    compared(*call)
            else:
                assert figures(compared(*call)) == [1, 1]


@pytest.mark.parametrize("column", ["type", "name"])
def test_a_column_that_is_no_class_is_named_with_the_option_that_says_so(folder, column):
    table = BOXES.assign(**{column: ["solid", "cystic"] * 6})
    with pytest.raises(InputError, match=rf"'{column}'.*D\.finding="):
        compared(table)
    assert figures(compared(table, columns=["D.finding="])) == [1, 1]
    table.to_csv(folder / "D.csv", index=False)
    files = (folder / "D.csv", folder / "labels.csv", folder / "true.csv")
    with pytest.raises(InputError, match=rf"'{column}'.*D\.finding="):
        compared(*files)
    assert figures(compared(*files, columns=["D.finding="])) == [1, 1]
    with pytest.raises(InputError, match=rf"'{column}'.*D\.finding="):
        on_data_set(folder)
    assert on_data_set(folder, columns=["D.finding="]) == 1


def test_a_class_that_names_no_finding_is_the_only_one_and_a_name_counts_before_a_number():
    for extra in ({"type": "bbox"}, {"class": 0, "name": "mass"}, {"lesion": True}):
        assert figures(compared(BOXES.assign(**extra))) == [1, 1]
    with pytest.raises(InputError, match="cardiomegaly"):
        compared(BOXES.assign(**{"class": 0, "name": "cardiomegaly"}))


def test_labels_without_a_name_take_one_class_of_any_name_but_not_another_than_the_true_boxes():
    unnamed = LABELS.rename(None)
    assert figures(compared(BOXES.assign(finding="mass"), unnamed)) == [1, 1]
    drawn = TRUE_BOXES.assign(finding="mass")
    assert figures(compared(BOXES.assign(finding="Mass"), unnamed, drawn)) == [1, 1]
    with pytest.raises(InputError, match="cardiomegaly"):
        compared(BOXES.assign(finding="cardiomegaly"), unnamed, drawn)
    for kind in REFUSED[:2]:
        with pytest.raises(InputError):
            compared(BOXES.assign(finding=classes(kind)), unnamed)
        with pytest.raises(InputError):
            of_truth_frame(None, BOXES.assign(category_id=classes(kind)))


def test_boxes_that_name_several_findings_of_the_truth_are_read(folder):
    truth = folder / "several.csv"
    of_both = pd.DataFrame({"image_id": IDS, "mass": LABELS.to_numpy(), "nodule": [0, 1] * 12})
    of_both.to_csv(truth, index=False)
    both = pd.concat([BOXES, BOXES.assign(image_id=IDS[1::2])], ignore_index=True)
    both["category_name"] = np.repeat(["Mass", "Nodule"], 12)
    for target in ("mass", "nodule"):
        result = compared(both, truth, None, target=[target])
        assert result.to_frame().set_index("metric")["estimate"]["auroc"] == 1


def test_metrics_do_not_mix_classes():
    ids = pd.Index(IDS)
    mixed = BOXES.assign(category_id=classes("two numbers"))
    with pytest.raises(InputError, match="2 classes"):
        cxr_compare.metrics.box_average_precision(mixed, TRUE_BOXES, ids)
    other = BOXES.assign(finding="cardiomegaly")
    with pytest.raises(InputError, match="cardiomegaly"):
        cxr_compare.metrics.box_average_precision(other, TRUE_BOXES.assign(finding="mass"), ids)


@pytest.mark.parametrize("file_name", ["{}.png", "images/{}.PNG", None])
def test_the_file_name_of_a_coco_result_decides_over_its_number(tmp_path, file_name):
    files = [f"{(number + 7) % 24 + 1:06d}.png" for number in range(24)]  # ids are in another order
    images = [{"id": n + 1, "file_name": file} for n, file in enumerate(files)]
    image_ids = dict(zip(IDS, range(1, 25), strict=True))
    drawn = [
        {**box, "id": n, "image_id": image_ids[box["image_id"]], "score": None}
        for n, box in enumerate(of_coco(TRUE_BOXES.assign(score=1.0), [1] * 12))
    ]
    truth = {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "mass"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = []
    for box in of_coco(BOXES, [1] * 12):
        stem = files[image_ids[box["image_id"]] - 1].removesuffix(".png")
        named = {} if file_name is None else {"file_name": file_name.format(stem)}
        results.append({**box, "image_id": int(stem), **named})
    (tmp_path / "D.json").write_text(json.dumps(results))
    call = (tmp_path / "D.json", tmp_path / "truth.json", None)
    if file_name is None:  # both readings fit
        with pytest.raises(InputError, match=r"D\.image=id.*D\.image=file_name"):
            compared(*call)
        assert figures(compared(*call, columns=["D.image=id"]))[1] == 0
        assert figures(compared(*call, columns=["D.image=file_name"])) == [1, 1]
        return
    assert figures(compared(*call)) == [1, 1]
    by_stem = {image: files[n - 1].removesuffix(".png") for image, n in image_ids.items()}
    labels = LABELS.rename(by_stem)
    true_boxes = TRUE_BOXES.assign(image_id=TRUE_BOXES["image_id"].map(by_stem))
    assert figures(compared(results, labels, true_boxes)) == [1, 1]


def test_unused_columns_of_a_result_file_are_named(folder):
    BOXES.assign(tracker=3).to_csv(folder / "D.csv", index=False)
    assert "tracker" in str(compared(folder / "D.csv", None, None, data=folder / "data"))
