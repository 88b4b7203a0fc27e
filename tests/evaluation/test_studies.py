"""The rules of other programs for boxes, and sizes of studies: kept figures and refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import supervision
import torch
from scipy.special import ndtri
from scipy.stats import multivariate_normal
from supervision.metrics import MeanAveragePrecision as SupervisionAp
from torchmetrics.detection import MeanAveragePrecision as TorchmetricsAp

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters.sets import prepare_tables, write_source
from tests.adapters.studies import (
    EDGES,
    Assumptions,
    auroc_parts,
    box_iou,
    margin_interval,
    nearest,
    protocol_figures,
)
from tests.oracles.boxes import rsna

VALUES = json.loads((Path(__file__).parents[1] / "kept/plans_and_rules.json").read_text())


def draw_boxes():
    """Boxes of two findings on 200 images, with crowds: predicted, true and the ids of images."""
    rng = np.random.default_rng(1)
    ids = [f"i{number:03d}" for number in range(200)]
    true, boxes = [], []
    for image in ids:
        for finding in "ab":
            for _ in range(rng.integers(0, 3)):
                x, y = rng.uniform(0, 800, 2)
                w, h = rng.uniform(40, 200, 2)
                true.append((image, finding, x, y, x + w, y + h, rng.random() < 0.1))
                for _ in range(rng.integers(0, 3)):
                    d = rng.normal(0, 15, 4)
                    x2, y2 = max(x + w + d[2], x + d[0] + 5), max(y + h + d[3], y + d[1] + 5)
                    score = round(rng.random(), 2)
                    boxes.append((image, finding, x + d[0], y + d[1], x2, y2, score))
        for _ in range(rng.integers(0, 4)):
            x, y = rng.uniform(0, 800, 2)
            w, h = rng.uniform(40, 200, 2)
            finding, score = rng.choice(["a", "b"]), round(rng.random() * 0.7, 2)
            boxes.append((image, finding, x, y, x + w, y + h, score))
    edges = ["image_id", "finding", "x1", "y1", "x2", "y2"]
    truth = pd.DataFrame(true, columns=[*edges, "crowd"])
    return pd.DataFrame(boxes, columns=[*edges, "score"]), truth, ids


def write_coco(folder, boxes, truth, ids):
    """Write COCO files of the images, each 1,100 px wide and high."""
    number = {name: k for k, name in enumerate(ids, start=1)}
    kinds = {"a": 1, "b": 2}

    def bbox(row):
        return [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1]

    content = {
        "images": [
            {"id": k, "file_name": f"{n}.png", "width": 1100, "height": 1100}
            for n, k in number.items()
        ],
        "categories": [{"id": k, "name": name} for name, k in kinds.items()],
        "annotations": [
            {
                "id": k,
                "image_id": number[row.image_id],
                "category_id": kinds[row.finding],
                "bbox": bbox(row),
                "area": (row.x2 - row.x1) * (row.y2 - row.y1),
                "iscrowd": int(row.crowd),
            }
            for k, row in enumerate(truth.itertuples(), start=1)
        ],
    }
    results = [
        {
            "image_id": number[row.image_id],
            "category_id": kinds[row.finding],
            "bbox": bbox(row),
            "score": row.score,
        }
        for row in boxes.itertuples()
    ]
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "boxes.json").write_text(json.dumps(results))


PROGRAMS = {
    "COCO AP50": ("COCO", "0.5"),
    "COCO AP75": ("COCO", "0.75"),
    "COCO AP[": ("COCO", "0.5 to 0.95"),
    "Pascal VOC from 2010": ("Pascal VOC from 2010", "0.5"),
    "Pascal VOC 2007": ("Pascal VOC 2007", "0.5"),
    "Ultralytics mAP50 from": ("Ultralytics from", "0.5"),
    "Ultralytics mAP50-95 from": ("Ultralytics from", "0.5 to 0.95"),
    "Ultralytics mAP50 before": ("Ultralytics before", "0.5"),
    "Ultralytics mAP50-95 before": ("Ultralytics before", "0.5 to 0.95"),
    "area under": ("area under", "0.5"),
    "RSNA": ("RSNA", "0.4 to 0.75"),
}


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    write_coco(folder, *draw_boxes())
    rows = cxr_compare.explain(folder / "boxes.json", truth=folder / "truth.json").to_dict()
    return folder, pd.DataFrame(rows)


def test_rules_of_other_programs_give_the_figures_of_the_former_program(explained):
    _, table = explained
    for key, expected in VALUES["explained"].items():
        text, floor, images = key.split("|")
        program, iou = next(rule for start, rule in PROGRAMS.items() if text.startswith(start))
        row = table[
            table["program"].str.startswith(program)
            & (table["iou"] == iou)
            & (table["floor"] == float(floor))
            & ((table["images"] == "all") == (images == "all"))
        ]
        assert len(row) == 1, key
        assert row["value"].iloc[0] == pytest.approx(expected, abs=1e-9), key
    assert len(VALUES["explained"]) == 110


def test_cocos_rule_is_that_of_pycocotools(explained):
    _, table = explained
    boxes, truth, ids = draw_boxes()
    of_findings = [
        metrics.box_average_precision(
            boxes[boxes["finding"] == one], truth[truth["finding"] == one], ids
        )
        for one in "ab"
    ]
    coco = table[
        table["program"].str.startswith("COCO") & (table["floor"] == 0) & (table["images"] == "all")
    ].set_index("iou")["value"]
    assert coco["0.5"] == pytest.approx(np.mean([one["ap50"] for one in of_findings]), abs=1e-9)
    assert coco["0.5 to 0.95"] == pytest.approx(
        np.mean([one["ap"] for one in of_findings]), abs=1e-9
    )


@pytest.fixture
def four(tmp_path):
    """COCO files of four images: the arguments of `explain`."""
    truth = coco_of(tmp_path, [f"x{k}.png" for k in range(4)], {1: "mass"}, [(1, 1, 0), (2, 1, 0)])
    return results_of(tmp_path, (1, True, 0.9), (2, False, 0.8), (3, True, 0.7)), truth


def test_without_a_figure_the_lines_are_those_of_all_boxes_and_images(four):
    boxes, truth = four
    found = cxr_compare.explain(boxes, truth=truth)
    table = pd.DataFrame(found.to_dict())
    main = table[(table["floor"] == 0) & (table["images"] == "all")]
    assert len(str(found).splitlines()) == len(main) + 1 < len(table) / 10
    for line, value in zip(str(found).splitlines(), main["value"], strict=False):
        assert line.startswith(f"{value:.4f} ")


def test_a_figure_is_answered_by_all_rules_that_give_it_or_the_nearest(four):
    boxes, truth = four
    table = explained_by(boxes, truth=truth)
    figure = f"{table['value'].iloc[0]:.3f}"
    near = (table["value"] - float(figure)).abs() <= 0.0005
    lines = str(cxr_compare.explain(boxes, truth=truth, figure=figure)).splitlines()
    assert len(lines) == near.sum() < len(table)
    found = cxr_compare.explain(boxes, truth=truth, figure="0.9999")
    assert "0.9999" in str(found).splitlines()[0]
    assert {row["value"] for row in found.to_dict()} == {table["value"].max()}


def test_a_truth_file_with_a_suffix_in_capitals_is_read(four):
    boxes, truth = four
    table = explained_by(boxes, truth=truth)
    capitals = Path(shutil.copy(truth, truth.with_name("TRUTH.JSON")))
    pd.testing.assert_frame_equal(explained_by(boxes, truth=capitals), table)


@pytest.mark.parametrize("figure", ["1.2", "ap75=0.3", "0.3.1", "nan", ""])
def test_a_text_that_is_no_figure_is_refused(four, figure):
    with pytest.raises(InputError, match="figure"):
        cxr_compare.explain(four[0], truth=four[1], figure=figure)


def test_a_figure_without_digits_is_met_within_half_of_a_tenth():
    table = pd.DataFrame({"value": [0.5, 0.94, 0.96, 1.0]})
    assert nearest(table, "1")["value"].tolist() == [0.96, 1.0]
    assert nearest(table, "1.00")["value"].tolist() == [1.0]
    assert nearest(table, "0.75")["value"].tolist() == [0.94]  # none gives it


def value_by(table, program, iou="0.5", floor=0.0, images="all"):
    """The figure of one row."""
    row = table[
        table["program"].str.startswith(program)
        & (table["iou"] == iou)
        & (table["floor"] == floor)
        & (table["images"] == images)
    ]
    assert len(row) == 1
    return row["value"].iloc[0]


def some_boxes(*rows, **columns):
    names = ["image_id", *EDGES, "score"][: len(rows[0])]
    return pd.DataFrame(rows, columns=names).assign(**columns)


SIX = some_boxes(
    ("b", 0, 0, 10, 10, 0.9),  # false, on an image without a lesion
    ("a", 0, 0, 10, 10, 0.8),
    ("a", 1, 0, 10, 10, 0.7),  # the lesion that is found already
    ("a", 50, 50, 60, 56, 0.6),  # IoU 0.6
    ("a", 80, 0, 90, 10, 0.4),
    ("a", 20, 0, 30, 10, 0.2),  # false
)
FOUR = some_boxes(
    ("a", 0, 0, 10, 10), ("a", 50, 50, 60, 60), ("a", 80, 0, 90, 10), ("a", 0, 80, 10, 90)
)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # Three of four lesions, at ranks 2, 4 and 5; the best precision is 3/5 up to recall 3/4.
        (("COCO",), 76 * 0.6 / 101),
        (("Pascal VOC from 2010",), 3 * 0.6 / 4),
        (("Pascal VOC 2007",), 8 * 0.6 / 11),
        (("area under",), (1 / 2 + 2 / 4 + 3 / 5) / 4),
        (("area under", "0.5", 0.0, "with a lesion"), (1 + 2 / 3 + 3 / 4) / 4),
        (("area under", "0.5", 0.5), (1 / 2 + 2 / 4) / 4),
        (("area under", "0.75"), (1 / 2 + 2 / 5) / 4),
        # Three hits, two or three false boxes, one or two missed lesions; image b has 0.
        (("RSNA", "0.4 to 0.75"), (4 * 3 / 6 + 4 * 2 / 7) / 8 / 2),
    ],
    ids=str,
)
def test_rules_by_hand(row, expected):
    assert value_by(protocol_figures(SIX, FOUR, ["a", "b", "c"]), *row) == pytest.approx(expected)


def test_a_box_on_a_crowd_does_not_count():
    truth = some_boxes(("a", 0, 0, 10, 10), ("b", 0, 0, 20, 20)).assign(crowd=[False, True])
    boxes = some_boxes(("b", 0, 0, 20, 18, 0.9), ("a", 0, 0, 10, 10, 0.8))
    assert value_by(protocol_figures(boxes, truth, ["a", "b"]), "COCO") == pytest.approx(1)
    truth["crowd"] = [False, False]
    truth.loc[1, EDGES] = [40, 40, 60, 60]
    assert value_by(protocol_figures(boxes, truth, ["a", "b"]), "COCO") < 0.9


def test_other_programs_count_more_than_a_hundred_boxes_and_any_score():
    """The hit is the 150th box of its image; COCO takes 100 of them, Ultralytics 300."""
    many = [("a", 20 + k, 50, 30 + k, 60, 0.9 - k / 1000) for k in range(149)]
    boxes = some_boxes(*many, ("a", 0, 0, 10, 10, 1e-6))
    table = protocol_figures(boxes, some_boxes(("a", 0, 0, 10, 10)), ["a"])
    assert value_by(table, "COCO") == 0
    assert value_by(table, "area under") == pytest.approx(1 / 150)
    assert value_by(table, "area under", floor=0.001) == 0
    assert value_by(table, "RSNA", "0.4 to 0.75") == pytest.approx(1 / 150)
    assert value_by(table, "Ultralytics from") > 0


def coco_of(folder, files, categories, marks):
    """A COCO file of images of 200 px with the ids 1, 2, ...; marks are image, category, crowd."""
    images = [
        {"id": k, "file_name": file, "width": 200, "height": 200}
        for k, file in enumerate(files, start=1)
    ]
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": [10, 10, 110, 130], "iscrowd": crowd}
        for k, (i, c, crowd) in enumerate(marks, start=1)
    ]
    kinds = [{"id": k, "name": title} for k, title in categories.items()]
    content = {"images": images, "categories": kinds, "annotations": annotations}
    path = folder / f"truth{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(content))
    return path


def results_of(folder, *rows):
    """COCO results of category 1 on the lesion of `coco_of` or beside it: image, hit, score."""
    boxes = {True: [10, 10, 110, 130], False: [130, 150, 40, 40]}
    content = [
        {"image_id": image, "category_id": 1, "bbox": boxes[hit], "score": score}
        for image, hit, score in rows
    ]
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def explained_by(boxes, **options):
    return pd.DataFrame(cxr_compare.explain(boxes, **options).to_dict())


def test_a_category_without_a_box_and_a_crowd_of_its_own_class_change_nothing(tmp_path):
    files, marks = [f"x{k}.png" for k in range(4)], [(1, 1, 0), (2, 1, 0)]
    boxes = results_of(tmp_path, (1, True, 0.9), (2, False, 0.8), (3, True, 0.7))
    plain = explained_by(boxes, truth=coco_of(tmp_path, files, {1: "mass"}, marks))
    assert value_by(plain, "area under") == pytest.approx(1 / 2)
    for kinds, more in (({0: "none", 1: "mass"}, []), ({1: "mass", 2: "other"}, [(1, 2, 1)])):
        truth = coco_of(tmp_path, files, kinds, marks + more)
        pd.testing.assert_frame_equal(explained_by(boxes, truth=truth), plain)


def test_a_number_that_may_be_an_id_or_that_of_a_file_is_asked_about(tmp_path):
    boxes = results_of(tmp_path, (1, True, 0.9), (2, True, 0.8))
    marks, kinds = [(1, 1, 0), (2, 1, 0)], {1: "mass"}
    for name in ("00{}.png", "{}.png"):  # the id 1 is of file 0, and there is a file 1
        truth = coco_of(tmp_path, [name.format(k) for k in range(4)], kinds, marks)
        with pytest.raises(InputError, match=r"boxes\.json"):
            cxr_compare.explain(boxes, truth=truth)
        by_id = explained_by(boxes, truth=truth, columns={"boxes.image": "id"})
        by_file = explained_by(boxes, truth=truth, columns={"boxes.image": "file_name"})
        assert value_by(by_id, "COCO") == pytest.approx(1)
        assert value_by(by_file, "COCO") < 0.6
    for files in ([f"x{k}.png" for k in range(4)], [f"{k + 1}.png" for k in range(4)]):
        truth = coco_of(tmp_path, files, kinds, marks)
        assert value_by(explained_by(boxes, truth=truth), "COCO") == pytest.approx(1)


def test_boxes_without_scores_scores_alone_and_other_findings_are_refused(tmp_path):
    one = coco_of(tmp_path, ["x0.png", "x1.png"], {1: "a"}, [(1, 1, 0)])
    two = coco_of(tmp_path, ["x0.png"], {1: "a", 2: "b"}, [(1, 1, 0), (1, 2, 0)])
    box = some_boxes(("x0", 10, 10, 60, 70, 0.5))
    for table, truth in (
        (box.drop(columns="score"), one),
        (box[["image_id", "score"]], one),
        (box, two),  # of a or of b
        (box.assign(finding="nodule"), one),
        (box.assign(image_id="y7"), one),
    ):
        table.to_csv(tmp_path / "boxes.csv", index=False)
        with pytest.raises(InputError) as error:
            cxr_compare.explain(tmp_path / "boxes.csv", truth=truth)
        assert "boxes.csv" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("columns", [["A.score=p"], ["score"], ["boxes.nothing=p"]])
def test_columns_of_what_is_not_there_are_refused(columns, tmp_path):
    truth = coco_of(tmp_path, ["x0.png"], {1: "a"}, [(1, 1, 0)])
    boxes = results_of(tmp_path, (1, True, 0.9))
    with pytest.raises(InputError, match="columns"):
        cxr_compare.explain(boxes, truth=truth, columns=columns)


def test_a_data_set_a_table_and_a_coco_file_of_the_same_boxes_give_the_same_figures(tmp_path):
    """In the data set half of the images are for validation, and two cannot be evaluated."""
    ids = [f"i{k:02d}" for k in range(42)]
    sick = np.arange(40) % 4 < 2
    lesions = some_boxes(*[(name, 10, 10, 120, 140) for name in np.array(ids[:40])[sick]])
    near = [(name, 12, 11, 121, 138, 0.5 + k / 100) for k, name in enumerate(ids[:30]) if sick[k]]
    beside = [(name, 130, 150, 170, 190, k / 50) for k, name in enumerate(ids) if k % 3]
    boxes = tmp_path / "boxes.csv"
    some_boxes(*near, *beside).to_csv(boxes, index=False)
    states = [*np.where(sick, "present", "absent"), "uncertain", "present"]  # the last has no box
    roles = [*["test", "val"] * 20, "test", "test"]
    source = write_source(tmp_path / "source", ids, {"mass": states}, split=roles)
    lesions.assign(finding="mass").to_csv(source / "boxes.csv", index=False)
    prepare_tables(source, tmp_path / "data")
    of_set = explained_by(boxes, data=tmp_path / "data")

    tested = pd.DataFrame({"image_id": ids[:40:2], "label": sick[::2].astype(int)})
    tested.merge(lesions, how="left").to_csv(tmp_path / "truth.csv", index=False)
    own = pd.read_csv(boxes).query("image_id in @tested.image_id")
    own.to_csv(tmp_path / "own.csv", index=False)
    of_table = explained_by(tmp_path / "own.csv", truth=tmp_path / "truth.csv")
    marks = [(k, 1, 0) for k in np.flatnonzero(sick[::2]).tolist()]
    marks = [(k + 1, category, crowd) for k, category, crowd in marks]
    truth = coco_of(tmp_path, [f"{name}.png" for name in ids[:40:2]], {1: "mass"}, marks)
    with pytest.raises(InputError, match="box_form"):  # each looks like two corners, too
        cxr_compare.explain(tmp_path / "own.csv", truth=truth)
    of_coco = explained_by(tmp_path / "own.csv", truth=truth, columns={"box_form": "xywh"})
    with pytest.raises(InputError, match="columns"):
        cxr_compare.explain(boxes, data=tmp_path / "data", columns={"box_form": "xywh"})
    assert 0 < value_by(of_set, "COCO") < 1
    pd.testing.assert_frame_equal(of_table, of_coco)
    pd.testing.assert_frame_equal(of_set, of_coco)


def test_without_a_predicted_or_a_true_box_there_is_no_figure():
    for boxes, truth in ((SIX[:0], FOUR), (SIX, FOUR[:0]), (SIX, FOUR.assign(crowd=True))):
        with pytest.raises(InputError):
            protocol_figures(boxes, truth, ["a", "b", "c"])


def draw_lesions():
    """Lesions on a third of 90 images, boxes near them, and false boxes; no scores are equal."""
    rng = np.random.default_rng(5)
    ids = [f"i{number:03d}" for number in range(90)]
    truth, boxes = [], []
    for image in ids:
        for _ in range(rng.integers(1, 4) if rng.random() < 1 / 3 else 0):
            x, y, w, h = rng.uniform([0, 0, 20, 20], [60, 60, 40, 40])
            truth.append((image, x, y, x + w, y + h))
            for _ in range(rng.integers(0, 3)):
                right, down = rng.normal(0, 6, 2)
                moved = (x + right, y + down, x + w + right, y + h + down)
                boxes.append((image, *moved, rng.beta(4, 2)))
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = rng.uniform([0, 0, 10, 10], [60, 60, 40, 40])
            boxes.append((image, x, y, x + w, y + h, rng.beta(1, 3)))
    return some_boxes(*boxes), some_boxes(*truth), ids


@pytest.fixture(scope="module")
def drawn():
    boxes, truth, images = draw_lesions()
    return boxes, truth, images, protocol_figures(boxes, truth, images)


def by_image(boxes, truth, images):
    for name in images:
        found = boxes[boxes["image_id"] == name].sort_values("score", ascending=False)
        true = truth.loc[truth["image_id"] == name, EDGES].to_numpy()
        yield found[EDGES].to_numpy(), found["score"].to_numpy(), true


def test_cocos_rule_is_that_of_torchmetrics_and_supervision(drawn):
    *tables, table = drawn
    metric, other = TorchmetricsAp(), SupervisionAp()
    for found, scores, true in by_image(*tables):
        labels = [torch.zeros(len(corners), dtype=torch.int) for corners in (found, true)]
        boxes = [torch.tensor(corners) for corners in (found, true)]
        metric.update(
            [{"boxes": boxes[0], "scores": torch.tensor(scores), "labels": labels[0]}],
            [{"boxes": boxes[1], "labels": labels[1]}],
        )
        other.update(
            supervision.Detections(found, confidence=scores, class_id=labels[0].numpy()),
            supervision.Detections(true, class_id=labels[1].numpy()),
        )
    own = [value_by(table, "COCO", iou) for iou in ("0.5", "0.75", "0.5 to 0.95")]
    figures, others = metric.compute(), other.compute()
    named = [float(figures[name]) for name in ("map_50", "map_75", "map")]
    assert named == pytest.approx(own, abs=1e-6)
    assert [others.map50, others.map75, others.map50_95] == pytest.approx(own, abs=1e-6)


def curve(boxes, truth, images, wider):
    """Recall and precision where a box may take only the true box that it overlaps most."""
    hits, scores = [], []
    widths = np.array([0, 0, wider, wider])
    for found, of_boxes, true in by_image(boxes, truth, images):
        taken = set()
        for box, score in zip(found + widths, of_boxes, strict=True):
            overlap = box_iou(box, true + widths) if len(true) else np.zeros(1)
            best = int(overlap.argmax())
            hits.append(overlap[best] >= 0.5 and best not in taken)
            scores.append(score)
            taken |= {best} if hits[-1] else set()
    hits = np.array(hits)[np.argsort(-np.array(scores), kind="stable")]
    return np.cumsum(hits) / len(truth), np.cumsum(hits) / np.arange(1, len(hits) + 1)


def test_rules_of_pascal_voc_and_ultralytics_are_those_that_were_published(drawn):
    """Loops as described: development kits, Ultralytics before and after pull request 24175."""
    *tables, table = drawn
    recall, precision = curve(*tables, wider=1)
    levels = [precision[recall >= t].max(initial=0) for t in np.arange(0, 1.1, 0.1)]
    assert value_by(table, "Pascal VOC 2007") == pytest.approx(np.mean(levels))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    area = (np.diff(recall, prepend=0) * best).sum()
    assert value_by(table, "Pascal VOC from 2010") == pytest.approx(area)
    recall, precision = curve(*tables, wider=0)
    for program, last in (("Ultralytics before", []), ("Ultralytics from", [(recall[-1], 0)])):
        points = [(0, 1), *zip(recall, precision, strict=True), *last, (1, 0)]
        x, y = np.array(points).T
        height = np.interp(np.linspace(0, 1, 101), x, np.maximum.accumulate(y[::-1])[::-1])
        assert value_by(table, program) == pytest.approx(np.trapezoid(height) / 100)


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_rsnas_score_is_a_mean_over_images(drawn, floor):
    boxes, truth, images, table = drawn
    rows = [list(each.itertuples(index=False, name=None)) for each in (boxes, truth)]
    expected = rsna(*rows, images, floor)
    assert value_by(table, "RSNA", "0.4 to 0.75", floor) == pytest.approx(expected)


@pytest.mark.parametrize("plan", VALUES["plans"], ids=lambda plan: plan["name"])
def test_a_plan_asks_for_as_many_patients_as_the_former_program(plan):
    arguments = {k: v for k, v in plan.items() if k not in ("name", "patients", "positive")}
    rows = cxr_compare.plan(**arguments).to_dict()
    assert [rows[-1]["patients"], rows[-1]["positives"]] == [plan["patients"], plan["positive"]]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"auroc": [0.8, 0.8], "prevalence": 0.3}, "difference"),
        ({"auroc": [0.8], "prevalence": 0.3}, "half-width"),
        ({"auroc": [1.2, 0.8], "prevalence": 0.3}, "auroc"),
        ({"auroc": [0.9, 0.8], "prevalence": 0}, "prevalence"),
        ({"auroc": [0.9, 0.8], "prevalence": 0.3, "correlation": 1.5}, "correlation"),
        ({"auroc": [0.9, 0.8], "prevalence": 0.3, "images": 0}, "images"),
        ({"auroc": [0.9, 0.8], "prevalence": 0.3, "power": 2}, "power"),
        ({"auroc": [0.9, 0.8], "prevalence": 0.3, "difference": -0.1}, "difference"),
        ({"auroc": [0.9, 0.8], "prevalence": 0.3, "half_width": 0}, "half-width"),
        ({"auroc": 0.8, "prevalence": 0.3, "half_width": 0.1, "difference": 0.1}, "difference"),
        ({"auroc": 0.8, "prevalence": 0.3, "margin": 5}, "margin"),
        ({"auroc": [0.8, 0.7], "prevalence": 0.3, "margin": 0.1}, "margin"),
    ],
)
def test_a_plan_out_of_range_is_refused_by_its_argument(arguments, part):
    with pytest.raises(InputError) as error:
        cxr_compare.plan(**arguments)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_an_interval_of_equal_aurocs_can_be_planned():
    (row,) = cxr_compare.plan(auroc=[0.8, 0.8], prevalence=0.3, half_width=0.05).to_dict()
    assumed = Assumptions((0.8, 0.8), 0.3)
    assert assumed.study(row["patients"]).half_width(of_difference=True) <= 0.05
    assert assumed.study(row["patients"] - 4).half_width(of_difference=True) > 0.05


def test_the_variance_of_one_auroc_is_that_of_hanley_and_mcneil_with_binormal_moments():
    auroc, positives, negatives = 0.85, 30, 50
    height = ndtri(auroc)
    both = multivariate_normal.cdf([height, height], cov=[[1, 0.5], [0.5, 1]])
    expected = auroc * (1 - auroc) + (positives + negatives - 2) * (both - auroc**2)
    study = Assumptions((auroc,), positives / (positives + negatives)).study(positives + negatives)
    assert study.positives == positives
    assert study.error**2 == pytest.approx(expected / positives / negatives, rel=1e-6)


@pytest.mark.release
@pytest.mark.parametrize("images", [1, 2])
def test_the_error_of_a_plan_is_what_simulated_studies_vary_by(images):
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(40), images)
    truth = owner < 15
    shift = np.sqrt(2) * ndtri([[0.85], [0.75]]) * truth

    def normals(n):  # scores of two systems that are correlated by 0.6
        first, rest = rng.normal(size=(2, n))
        return np.stack([first, 0.6 * first + 0.8 * rest])

    gaps = []
    for _ in range(2000):
        scores = np.sqrt(0.5) * (normals(40)[:, owner] + normals(len(owner))) + shift
        first, second = (auroc_parts(truth, each, owner, 40).value for each in scores)
        gaps.append(first - second)
    study = Assumptions((0.85, 0.75), 15 / 40, 0.6, images, 0.5).study(40)
    assert np.std(gaps) == pytest.approx(study.error, rel=0.05)
    assert np.mean(gaps) == pytest.approx(0.1, abs=4 * study.error / np.sqrt(2000))


def share_that_shows(plan, patients, positives, sets, seed):
    """Share of simulated studies of a planned size that show what was planned.

    That is that the first system is better, or that the second is not worse by more than a margin.
    """
    rng = np.random.default_rng(seed)
    images, within = plan.get("images", 1), plan.get("within", 0.5)
    owner = np.repeat(np.arange(patients), images)
    truth = owner < positives
    shift = np.sqrt(2) * ndtri(np.array(plan["auroc"]))[:, None] * truth

    def normals(n):  # scores of two systems that are correlated by 0.5
        first, rest = rng.normal(size=(2, n))
        return np.stack([first, 0.5 * first + np.sqrt(0.75) * rest])

    shown = 0
    for _ in range(sets):
        of_patients = np.sqrt(within) * normals(patients)[:, owner]
        scores = of_patients + np.sqrt(1 - within) * normals(len(owner)) + shift
        one, other = (auroc_parts(truth, each, owner, patients) for each in scores)
        if "margin" in plan:
            shown += margin_interval(one, other)[1] < plan["margin"]
            continue
        gap = (one - other).estimate()
        shown += gap.p_value < 0.05 and gap.estimate > 0
    return shown / sets


PLANS = [
    {"auroc": (0.9, 0.8), "prevalence": 0.05},
    {"auroc": (0.95, 0.85), "prevalence": 0.1},
    {"auroc": (0.9, 0.8), "prevalence": 0.1, "images": 3},
    {"auroc": (0.85, 0.8), "prevalence": 0.5},
    {"auroc": (0.85, 0.8), "prevalence": 0.5, "images": 3, "within": 0.4},
    {"auroc": (0.9, 0.85), "prevalence": 0.5, "power": 0.9},
    {"auroc": (0.85, 0.85), "prevalence": 0.3, "margin": 0.07},
    {"auroc": (0.9, 0.88), "prevalence": 0.1, "margin": 0.1},
    {"auroc": (0.85, 0.87), "prevalence": 0.3, "margin": 0.05, "images": 3},
]


@pytest.mark.parametrize("sets", [1000, pytest.param(5000, marks=pytest.mark.release)])
@pytest.mark.parametrize("plan", PLANS)
def test_as_many_studies_as_planned_show_the_difference(plan, sets):
    (row,) = cxr_compare.plan(**plan).to_dict()
    shown = share_that_shows(plan, row["patients"], row["positives"], sets, 37)
    assert shown == pytest.approx(plan.get("power", 0.8), abs=0.03)


def test_the_order_of_two_systems_does_not_change_a_plan():
    one, other = (
        cxr_compare.plan(auroc=aurocs, prevalence=0.05) for aurocs in ((0.9, 0.8), (0.8, 0.9))
    )
    assert one.to_dict() == other.to_dict()


@pytest.mark.parametrize("assumed", [Assumptions((0.85, 0.8), 0.1), Assumptions((0.9, 0.7), 0.5)])
def test_more_patients_never_have_less_power_or_a_wider_interval(assumed):
    studies = [assumed.study(patients) for patients in (4, 10, 30, 100, 1000, 10**5, 10**8)]
    powers = [study.power(0.05) for study in studies]
    widths = [study.half_width(of_difference=True) for study in studies]
    assert (np.diff(powers) >= -1e-6).all()
    assert (np.diff(widths) < 0).all()
    assert powers[-1] == pytest.approx(1)
    assert assumed.study(500).power(0.0) == pytest.approx(0.05, abs=1e-6)
