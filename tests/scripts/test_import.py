"""`cxr import`: predictions of other software, checked row by row."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.read_table import ColumnNames
from cxr_compare.evaluation.sources import import_folder
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.import_predictions import import_predictions
from cxr_compare.scripts.commands.split import split
from tests.compared import compare_predictions
from tests.scripts.small_sets import table_set


def small_set(folder: Path, ids: Iterable[str] = "abcdef") -> Path:
    """Six images of 100 x 80 px: two train, two val, two test."""
    roles = ["train", "train", "val", "val", "test", "test"]
    states = {"opacity": ["present", "absent"] * 3}
    return table_set(folder, list(ids), states, width=100, height=80, split=roles)


BOXES = "image_id,x1,y1,x2,y2,score\nc,1,2,30,40,0.5\nc,5,6,50,60,0.25\ne,0,0,9,9,1\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"))


@pytest.fixture
def run(data: Path, tmp_path: Path):
    """Import a text as a file; returns the predictions."""

    def run(text: str, name: str = "preds.csv", **options) -> Predictions:
        file = tmp_path / name
        file.write_text(text)
        options = {"data": data, "out": tmp_path / "out", "name": "Other", **options}
        run_command(import_predictions, file, **options)
        return Predictions.open(tmp_path / "out")

    return run


def statuses(predictions: Predictions) -> dict[str, str]:
    return dict(zip(predictions.images["image_id"], predictions.images["status"], strict=True))


def test_scores_come_in_and_images_without_one_are_failed(run, capsys):
    predictions = run("image_id,score\nc,0.25\nd,0\ne,1\n")
    assert predictions.kind == "scores"
    assert predictions.scores["score"].tolist() == [0.25, 0.0, 1.0]
    assert set(predictions.scores["finding"]) == {"opacity"}
    assert statuses(predictions) == {"c": "ok", "d": "ok", "e": "ok", "f": "failed"}
    shown = capsys.readouterr().err
    assert "1 of 2 test images" in shown
    assert "(f)" in shown  # the image that is missing
    assert predictions.info.trained_on == "unknown"


def test_a_system_is_named_like_its_file_and_a_table_needs_a_name(data, tmp_path):
    table = pd.DataFrame({"image_id": list("cdef"), "score": 0.5})
    table.to_csv(tmp_path / "Net A.csv", index=False)
    named = import_predictions(tmp_path / "Net A.csv", data=data, out=tmp_path / "out")
    assert named.name == "Net A"
    with pytest.raises(InputError, match=r"^name=\.\.\. is missing"):
        import_predictions(table, data=data, out=tmp_path / "table")


def test_scores_of_a_spreadsheet_or_with_decimal_commas_are_those_of_the_csv(run, tmp_path, data):
    table = pd.DataFrame({"image_id": list("cdef"), "score": [0.25, 0.5, 0.125, 1.0]})
    table.to_excel(tmp_path / "preds.xlsx", index=False)
    import_folder.import_file(
        tmp_path / "preds.xlsx", data, tmp_path / "book", ImportOptions("Other")
    )
    commas = run(table.to_csv(index=False, sep=";", decimal=","))
    for predictions in (Predictions.open(tmp_path / "book"), commas):
        assert predictions.scores["score"].tolist() == table["score"].tolist()


@pytest.mark.parametrize("text", ["image_id,score\nc,0.25\nd,0\ne,1\n", BOXES])
def test_import_that_was_ended_before_its_record_goes_on(run, monkeypatch, text):
    def end(record: PredictionsInfo, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PredictionsInfo, "write", end)
        with pytest.raises(KeyboardInterrupt):
            run(text)
    resumed = run(text)
    assert statuses(resumed)["c"] == "ok"
    assert len(getattr(resumed, resumed.kind)) == 3


def test_columns_of_a_wide_table_can_be_named(run):
    text = "Image Index,prob_A,prob_B\nc,0.1,0.6\nd,0.2,0.7\ne,0.3,0.8\nf,0.4,0.9\n"
    predictions = run(text, columns=["image=Image Index", "score=prob_B"])
    assert predictions.scores["score"].tolist() == [0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("images", "expected"),
    [("all", {"c": "ok", "d": "ok", "e": "ok", "f": "ok"}),
     ("listed", {"c": "ok", "d": "failed", "e": "ok", "f": "failed"})],
)  # fmt: skip
def test_an_image_without_boxes_had_nothing_or_was_not_run(run, images, expected):
    box = "10,10,30,40,0.5"
    predictions = run(f"image_id,x1,y1,x2,y2,score\nc,{box}\ne,{box}\n", images=images)
    assert predictions.kind == "boxes"
    assert statuses(predictions) == expected


def test_boxes_as_texts_do_not_make_a_detector_a_classifier(run):
    with pytest.raises(InputError, match=r"row 3: .*bbox"):
        run('image_id,score,bbox\nc,0.25,\nd,0.5,"[10, 20, 30, 40]"\n')
    assert run('image_id,score,note\nc,0.25,\nd,0.5,"[10, 20]"\n').kind == "scores"


def test_coco_results_become_corners(run):
    results = [{"image_id": "c", "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5}]
    predictions = run(json.dumps(results), "preds.json")
    row = predictions.boxes.iloc[0]
    assert (row.x1, row.y1, row.x2, row.y2, row.score) == (10, 20, 40, 60, 0.5)
    assert row.finding == "opacity"


def test_coco_numbers_are_named_by_their_annotation_file(run, tmp_path):
    truth = {"images": [{"id": 7, "file_name": "images/c.png"}],
             "categories": [{"id": 3, "name": "opacity"}]}  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}]
    predictions = run(json.dumps(results), "preds.json", coco_truth=tmp_path / "truth.json")
    assert predictions.boxes["image_id"].tolist() == ["c"]


def test_coco_numbers_that_are_no_names_ask_for_the_annotation_file(run, tmp_path):
    results = json.dumps([{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}])
    with pytest.raises(InputError, match=r"\('7'\), the first at entry 0; .*--coco-truth"):
        run(results, "preds.json")
    truth = {"images": [{"id": 8, "file_name": "c.png"}], "categories": [{"id": 3, "name": "x"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(InputError, match=r"preds\.json: entry 0: image 7 .*truth\.json"):
        run(results, "preds.json", coco_truth=tmp_path / "truth.json")


@pytest.fixture
def yolo(data: Path, tmp_path: Path):
    """Import texts as YOLO prediction files, by name; returns the predictions."""

    def yolo(texts: dict[str, str], **options) -> Predictions:
        for name, text in texts.items():
            (tmp_path / "predict" / "labels").mkdir(parents=True, exist_ok=True)
            (tmp_path / "predict" / name).write_text(text)
        out = tmp_path / "out"
        run_command(
            import_predictions, tmp_path / "predict", data=data, out=out, name="YOLO", **options
        )
        return Predictions.open(out)

    return yolo


_YOLO = {"labels/c.txt": "0 0.25 0.5 0.3 0.5 0.75\n0 0.5 0.5 1.00004 1 0.5\n", "labels/d.txt": ""}


def test_yolo_predictions_become_pixels_of_the_original(yolo, capsys):
    predictions = yolo({**_YOLO, "labels/e.txt": ""})
    assert predictions.boxes[EDGES].to_numpy().tolist() == [[10, 20, 40, 60], [0, 0, 100, 80]]
    assert predictions.boxes["score"].tolist() == [0.75, 0.5]
    assert set(predictions.boxes["finding"]) == {"opacity"}
    assert set(statuses(predictions).values()) == {"ok"}
    shown = capsys.readouterr().err
    assert "1 of 2 test images have no box" in shown
    assert "clipped" not in shown  # 0.002 px are rounding


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("", {"c": "ok", "d": "ok", "e": "failed", "f": "failed"}),
     ("images/e.png\n\nd\n", {"c": "ok", "d": "ok", "e": "ok", "f": "failed"})],
)  # fmt: skip
def test_missing_file_and_file_without_boxes_are_distinguished(yolo, tmp_path, listed, expected):
    (tmp_path / "run.txt").write_text(listed)
    images = str(tmp_path / "run.txt") if listed else "listed"
    assert statuses(yolo(_YOLO, images=images)) == expected


def test_classes_of_yolo_are_named_by_a_yaml_beside_or_by_the_option(yolo, tmp_path):
    described = "names: {0: hernia, 1: Opacity}"
    texts = {"data.yaml": described, "labels/c.txt": "1 .5 .5 .2 .2 .9"}
    assert yolo(texts).boxes["finding"].tolist() == ["opacity"]


def test_no_image_of_yolo_is_lost_by_a_name(yolo):
    with pytest.raises(InputError, match=r"g\.txt .*\(1 such files\)"):
        yolo({**_YOLO, "labels/g.txt": ""})
    predictions = yolo({}, ignore_unknown=True, images="listed")
    assert [name for name, status in statuses(predictions).items() if status == "ok"] == ["c", "d"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("0 .5 .5 .2 .2\n0 .3 .3 .1 .1 .9", {}, r"c\.txt.* line 1: .*save_conf=True"),
        ("\n0 .5 .5 .2 .2 high", {}, r"c\.txt: line 2: "),
        ("0 .5 .5 .2 .2 .3 .4 .9", {}, "line 1: "),
        ("0 .5 .5 .2 .2 1.5", {}, r"c\.txt, line 1, image 'c': score=1.5"),
        ("0 50 40 30 20 .5", {}, r"c\.txt, line 1, image 'c': box \[50, 40, 30, 20\].*pixels"),
        ("0 .5 .5 0 .2 .5", {}, r"c\.txt, line 1, image 'c': box \[0\.5, 0\.5, 0, 0\.2"),
        ("0 .5 nan .1 .2 .5", {}, r"c\.txt, line 1, image 'c': x1=45, y1=nan"),
        ("1 .5 .5 .2 .2 .5", {}, r"c\.txt, line 1: class 1 .*--class-names"),
        ("1 .5 .5 .2 .2 .5", {"class_names": "opacity"}, "line 1: class 1 .* 1 classes "),
        ("0 .5 .5 .2 .2 .5", {"class_names": "no.yaml"}, r"^no\.yaml: .*No such file"),
        ("0 .5 .5 .2 .2 .5", {"class_names": "mass"}, r"1 finding is .*\('mass'\).*line 1"),
        ("0 .5 .5 .2 .2 .5", {"images": "some"}, "^--images some: .*all, listed"),
    ],
)
def test_a_bad_line_of_yolo_is_refused_by_file_and_line(yolo, tmp_path, text, options, message):
    with pytest.raises(InputError, match=message):
        yolo({"labels/c.txt": text}, **options)
    assert not (tmp_path / "out").exists()


def test_yolo_files_without_confidences_are_decisions_and_the_user_is_told(yolo, capsys):
    read = yolo({"labels/c.txt": "0 .5 .5 .2 .2"})
    assert len(read.boxes) == 1
    assert "save_conf=True" in capsys.readouterr().err


def test_a_table_in_python_is_imported_like_a_file(data, tmp_path):
    frame = pd.DataFrame({"image_id": ["c", "d"], "p": [0.25, 1]}, index=["one", "two"])
    columns = ColumnNames(score="p")
    imported_predictions = import_folder.import_file(
        frame, str(data), tmp_path / "out", ImportOptions("Table", columns=columns)
    )
    assert imported_predictions.scores["score"].tolist() == [0.25, 1.0]
    assert imported_predictions.info.imported_from == "DataFrame"
    for wrong, message in (
        (frame.assign(p=[0.5, 2]), r"the DataFrame: row two, image 'd': score=2.0"),
        (frame.assign(image_id=["c", None]), "the DataFrame: row two: image_id "),
        (
            frame.assign(x1=1, y1=1, x2=9, y2=9).iloc[:, [0, 1, 2, 2, 3, 4, 5]],
            "the DataFrame: column 'x1' ",
        ),
        (frame.rename(columns={"p": "q"}), "the DataFrame: column 'p' .*image_id, q"),
    ):
        with pytest.raises(InputError, match=message):
            import_folder.import_file(
                wrong, data, tmp_path / "no", ImportOptions("T", columns=columns)
            )
    assert not (tmp_path / "no").exists()


def test_boxes_are_clipped_counted_and_limited(run, capsys):
    lines = ["image_id,x1,y1,x2,y2,score", "c,-5,10,120,40,0.9", "c,1,1,2,2,0.0005"]
    lines += [f"d,1,1,{10 + number % 50},20,{0.1 + number / 1000}" for number in range(105)]
    predictions = run("\n".join(lines) + "\n")
    first = predictions.boxes.query("image_id == 'c'")
    assert first[["x1", "x2"]].to_numpy().tolist() == [[0, 100]]
    best = predictions.boxes.query("image_id == 'd'")["score"]
    assert len(best) == 100
    assert best.min() == pytest.approx(0.105)
    shown = capsys.readouterr().err
    assert "1 box reached beyond " in shown
    assert "6 boxes left out" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,score\nc,0.5\nzz,0.5\nyy,0.1\n", r"2 images .*\('zz', 'yy'\).*row 3"),
        ("image_id,score\nc,0.5\nd,1.5\n", r"row 3, image 'd': score=1.5; .*\[0, 1\]"),
        ("image_id,score\nc,abc\n", "row 2, image 'c': score='abc'"),
        ("image_id,score\nc,0\n\nc,True\n", "row 4, image 'c': score='True'"),
        (f"image_id,score\n{100_000 * 'a'},0.5\n", r"\('a{80}'\)"),
        ("image_id,score\nc,0.5\nc,0.6\n", "row 3 .*image 'c' .*opacity"),
        ("image_id,p\nc,0.5\n", "column 'score' .*image_id, p; .*--columns score="),
        ("case,score\nc,0.5\n", "column 'image_id' .*case, score; .*--columns image="),
        ("image_id,score,finding\nc,0.5,hernia\n", r"1 finding is .*\('hernia'\).*row 2"),
        ("image_id,x1,y1,score\nc,1,2,0.5\n", "'x2', 'y2' are missing; .*x1, y1, x2 and y2"),
        ("image_id,x1,y1,x2,y2,score\nc,9,9,9,20,0.5\n", r"row 2, image 'c': box \[9, 9, 9"),
        ("image_id,x1,y1,x2,y2,score\nc,200,9,220,20,0.5\n", r"row 2.*box \[200.*of 100 px"),
        ("image_id,x,y,score\nc,1,2,0.5\n", r"has x, y; boxes need .* x, y, width and height"),
        ("image_id,x,y,width,height,score\nc,50,40,90,70,1\n", r"row 2.*corners\?"),
        ("image_id,x1,y1,x2,y2,score\nc,1,1,9,9,1\nc.png,1,1,9,9,1\n", r"row 3 calls.*'c\.png'"),
        ("image_id,x1,y1,x2,y2,score\nC,1,1,9,9,1\n", r"is 'C' image 'c'\?"),
        ("image_id,x1,y1,x2,y2,score\nc,,9,22,20,0.5\n", "x1='' is no number"),
        ("image_id,score\nc,0,5\n", "line 2 has more cells .*decimal commas\\? Write 0\\.5"),
        ("image_id,score\n", "has a header but no row of scores"),
        (
            "image_id:score\na:0.5\n",
            "columns 'image_id', 'score' are missing",
        ),
        ("image_id,score\na,0.5\nb,0.6\n", "has 2 training images"),
        ("patientId,PredictionString\nc,\nd,0.9 1 2 3\n", "row 3, image 'd': 4 numbers"),
        ("patientId,PredictionString\nc,0.9 1 2 3 nan\n", "row 2, image 'c': a number"),
        ("patientId,PredictionString\nc,90 1 2 3 4\n", "row 2, image 'c': score=90"),
        ("patientId,PredictionString\nc,\nc,0.9 1 2 3 4\n", "row 3: image 'c'"),
        ("patientId,PredictionString\nc,\nz,\n", "'z'"),
        ("image_id,PredictionString\nc,0.5 0.9 1 2 3 4\n", "row 2, image 'c'"),
        ("image_id,PredictionString\nc,15 0.9 1 2 3 4\n", "class 15"),
    ],
)
def test_bad_row_is_refused_by_position_and_nothing_is_written(run, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        run(text)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("image_id,x,y,width,height,score\nc,10,20,30,40,0.5\n", "x, y, width, height as"),
        (
            "filename,xmin,ymin,xmax,ymax,prob\nc.png,10,20,40,60,0.5\n",
            "xmax, ymax as x1, y1, x2, y2",
        ),
        ("Image Index,left,top,right,bottom,Confidence\nc,10,20,40,60,.5\n", "Confidence as score"),
        ("image,x_center,y_center,w,h,conf,class\nc,25,40,30,40,.5,Opacity\n", "class as finding"),
        # Width and height beside corners are those of the image.
        ("image_id,x1,y1,x2,y2,width,height,score\nc,10,20,40,60,100,80,0.5\n", None),
    ],
)
def test_columns_of_boxes_are_recognised_and_reported(run, capsys, text, read):
    predictions = run(text)
    assert predictions.kind == "boxes"
    row = predictions.boxes.iloc[0]
    assert (row.image_id, row.finding, row.score) == ("c", "opacity", 0.5)
    assert row[EDGES].tolist() == [10, 20, 40, 60]
    lines = [line for line in capsys.readouterr().err.splitlines() if "Columns recognised" in line]
    assert len(lines) == (read is not None)
    assert all(str(read) in line and "--columns" in line for line in lines)


def test_columns_of_scores_are_recognised_and_reported(run, capsys):
    predictions = run("filename,prob\nc.png,0.25\n")
    assert predictions.scores[["image_id", "score"]].to_numpy().tolist() == [["c", 0.25]]
    assert "filename as image_id, prob as score" in capsys.readouterr().err


def test_a_column_that_was_named_and_is_not_there_is_not_guessed(run):
    for role in ("image", "score", "finding"):
        with pytest.raises(InputError, match=f"'other' .*--columns {role}="):
            run("image_id,score,finding\nc,0.5,opacity\n", columns=[f"{role}=other"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"preds\.json: .*object"),
        ("[{", r"preds\.json: .*line 1 column 2"),
        ('[{"image_id": "c", "bbox": [1, 2, 3], "score": 1}]', "entry 0"),
        ('[{"image_id": "c", "bbox": "1234", "score": 1}]', "entry 0"),
        ('[{"image_id": "c", "score": 1}]', "entry 0"),
        (
            '[{"image_id": "c", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1},'
            ' {"image_id": "c", "category_id": 2, "bbox": [1, 2, 3, 4], "score": 1}]',
            "--coco-truth",
        ),
    ],
)
def test_bad_coco_results_are_refused(run, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        run(text, "preds.json")
    assert not (tmp_path / "out").exists()


def coco_results(boxes: Iterable[tuple[float, ...]]) -> str:
    entries = [{"image_id": "c", "bbox": box, "score": 0.5, "category_id": 1} for box in boxes]
    return json.dumps(entries)


def test_coco_results_in_corners_are_refused_with_the_format(run, tmp_path):
    corners = [(10 + n, 20 + n, 60 + n, 70 + n) for n in range(10)]
    with pytest.raises(InputError, match=r"entry 0, image 'c': box \[10, 20, 60, 70\].*corners"):
        run(coco_results(corners), "preds.json")
    assert not (tmp_path / "out").exists()
    sides = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners]
    assert len(run(coco_results(sides), "preds.json").boxes) == 10


def test_pixels_of_a_resized_image_are_refused(run):
    lines = [f"c,{10 * n},10,{10 * n + 60},40,0.5" for n in range(10)]
    with pytest.raises(InputError, match=r"row 8, image 'c': box \[60, 10, 120, 40\].*size"):
        run("image_id,x1,y1,x2,y2,score\n" + "\n".join(lines))


def test_images_of_the_annotation_file_are_those_that_were_run(run, tmp_path, capsys):
    truth = {"images": [{"id": 1, "file_name": "e.png"}, {"id": 2, "file_name": "f.png"},
                        {"id": 3, "file_name": "other.png"}],
             "categories": [{"id": 3, "name": "opacity"}]}  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}]
    predictions = run(json.dumps(results), "preds.json", coco_truth=tmp_path / "truth.json")
    assert statuses(predictions) == {"c": "failed", "d": "failed", "e": "ok", "f": "ok"}
    assert "1 image has no box: run, for truth.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ("e,10,10,30,40,0.5", {"c": "failed", "d": "failed", "e": "ok", "f": "ok"}),
        ("c,10,10,30,40,0.5", {"c": "ok", "d": "ok", "e": "failed", "f": "failed"}),
    ],
)
def test_images_of_a_role_without_a_box_were_not_run(run, capsys, box, expected):
    """A detector that ran on test images alone found nothing on validation images."""
    assert statuses(run(f"image_id,x1,y1,x2,y2,score\n{box}\n")) == expected
    assert "image has a box" in capsys.readouterr().err


_BOX = "10,10,30,40,0.5"


@pytest.fixture
def two_splits(prepared_with_two_splits: Path, tmp_path: Path) -> Path:
    """A copy of the set with two splits."""
    return shutil.copytree(prepared_with_two_splits, tmp_path / "two")


@pytest.fixture(scope="module")
def prepared_with_two_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, of which the split 'official' evaluates a and b, the images that train here."""
    folder = tmp_path_factory.mktemp("two_splits")
    data = small_set(folder)
    table = DataSet.open(data).split()
    roles = ["val", "test", "train", "train", "train", "train"]
    pd.DataFrame({"image_id": table["image_id"], "role": roles}).to_csv(
        folder / "official.csv", index=False
    )
    split(data, name="official", file=folder / "official.csv")
    return data


@pytest.mark.parametrize(
    "text",
    ["image_id,score\na,0.5\nb,0.6\n", f"image_id,x1,y1,x2,y2,score\na,{_BOX}\nb,{_BOX}\n"],
)
def test_predictions_of_another_split_alone_are_refused_and_that_split_is_named(
    run, two_splits, tmp_path, text
):
    with pytest.raises(InputError, match=r"none of the 4 .*2 training images.*--split official"):
        run(text, data=two_splits)
    assert not (tmp_path / "out").exists()
    assert set(statuses(run(text, data=two_splits, split="official")).values()) == {"ok"}


def test_boxes_that_lie_partly_on_another_split_are_not_taken_as_run_elsewhere(
    run, two_splits, tmp_path, capsys
):
    roles = ["val", "test", "test", "train", "train", "train"]
    wider = pd.DataFrame({"image_id": list("abcdef"), "role": roles})
    wider.to_csv(tmp_path / "wider.csv", index=False)
    split(two_splits, name="wider", file=tmp_path / "wider.csv")
    text = f"image_id,x1,y1,x2,y2,score\na,{_BOX}\nb,{_BOX}\nc,{_BOX}\n"
    predictions = run(text, data=two_splits)
    expected = dict.fromkeys("abc", "ok") | dict.fromkeys("def", "failed")
    assert statuses(predictions) == expected
    assert "--split wider" in capsys.readouterr().err


def test_validation_images_that_are_named_were_run(run, tmp_path):
    (tmp_path / "run.txt").write_text("c\nd\nf\n")
    text = "image_id,x1,y1,x2,y2,score\ne,10,10,30,40,0.5\n"
    assert set(statuses(run(text, images=str(tmp_path / "run.txt"))).values()) == {"ok"}


def test_unknown_images_can_be_left_out(run, capsys):
    predictions = run("image_id,score\nc,0.5\nzz,0.5\n", ignore_unknown=True)
    assert predictions.scores["image_id"].tolist() == ["c"]
    assert "('zz')" in capsys.readouterr().err


def test_file_without_any_image_of_the_data_set_is_refused(run):
    with pytest.raises(InputError, match=r"preds\.csv: .*/data$"):
        run("image_id,score\nzz,0.5\n", ignore_unknown=True)


def test_from_python_a_dataframe_is_imported(data, tmp_path):
    frame = pd.DataFrame({"image_id": ["c"], "score": [0.5]})
    original = frame.copy()
    made = import_predictions(frame, data=data, out=tmp_path / "out", name="Other")
    assert frame.equals(original)
    assert made.scores[["image_id", "score"]].to_dict("list") == frame.to_dict("list")
    assert made.info.command.startswith("cxr import DataFrame --data")


def test_numeric_ids_keep_their_leading_zeros(tmp_path):
    small_set(tmp_path, ids=[f"00{ord(letter)}" for letter in "abcdef"])
    (tmp_path / "p.csv").write_text("image_id,score\n0099,0.5\n")
    data, out = tmp_path / "data", tmp_path / "out"
    import_predictions(tmp_path / "p.csv", data=data, out=out, name="Other")
    assert Predictions.open(tmp_path / "out").scores["image_id"].tolist() == ["0099"]


def test_another_file_or_reading_has_another_inference_id(data, tmp_path):
    ids = set()
    for number, text in enumerate(["c,0.5", "c,0.6"]):
        file = tmp_path / f"{number}.csv"
        file.write_text(f"image_id,score\n{text}\n")
        out = tmp_path / f"out{number}"
        import_predictions(file, data=data, out=out, name="Other")
        ids.add(Predictions.open(out).info.inference_id)
    assert len(ids) == 2


def test_the_published_chexnet_scores_as_three_systems(shared_data, tmp_path):
    """A real third-party system from end to end, against figures known beforehand."""
    folder = shared_data / "chexnet_scores"
    truth = pd.read_csv(folder / "truth_rsna.csv")
    ids, kinds = truth["Image Index"], {"Lung Opacity": "lung_opacity", "Normal": "normal"}
    data = table_set(
        tmp_path, ids, {"lung_opacity": truth["Target"]}, patient_id="nih:" + ids.str[:8],
        split="test", x_class=truth["class"].map(kinds).fillna("not_normal"),
    )  # fmt: skip
    dataset, systems = DataSet.open(data), {}
    for finding in ("Pneumonia", "Consolidation", "Infiltration"):
        import_predictions(
            folder / "preds.csv", data=data, out=tmp_path / finding, name=f"CheXNet {finding}",
            columns={"image": "Image Index", "score": f"prob_{finding}"}, ignore_unknown=True,
        )  # fmt: skip
        systems[finding] = Predictions.open(tmp_path / finding)
    comparison = compare_predictions(
        systems, LabelledSplit(dataset, dataset.target()), replicates=200
    )
    rows = comparison.metrics.query("metric == 'auroc' and subgroup == 'all' and second == ''")
    auroc = rows.set_index("first")["estimate"].round(4)
    assert auroc[list(systems)].tolist() == [0.7891, 0.8161, 0.8017]
    assert (rows["n_images"] == 3553).all()
    subgroups = set(comparison.metrics.query("metric == 'auroc'")["subgroup"])
    assert {"all", "vs_normal"} <= subgroups


def test_folder_instead_of_a_file_and_a_blank_name_are_refused(data, tmp_path):
    with pytest.raises(InputError, match="holds no prediction file"):
        import_predictions(tmp_path, data=data, out=tmp_path / "out", name="Other")
    ids = DataSet.open(data).images["image_id"]
    (tmp_path / "preds.csv").write_text(f"image_id,score\n{ids.iloc[2]},0.5\n")
    with pytest.raises(InputError, match=r"out: .*name="):
        import_predictions(tmp_path / "preds.csv", data=data, out=tmp_path / "out", name=" ")
    assert not (tmp_path / "out").exists()


def test_the_submission_of_rsna_is_read_as_boxes(run, capsys):
    strings = "0.9 10 20 30 40 0.4 1 2 3 4", "", " ", "0.5 5 6 7 8"
    rows = "\n".join(f"{name},{text}" for name, text in zip("cdef", strings, strict=True))
    predictions = run(f"patientId,PredictionString\n{rows}\n")
    boxes = predictions.boxes[["image_id", *EDGES, "score"]].to_numpy().tolist()
    assert boxes == [
        ["c", 10, 20, 40, 60, 0.9],
        ["c", 1, 2, 4, 6, 0.4],
        ["f", 5, 6, 12, 14, 0.5],
    ]
    assert set(statuses(predictions).values()) == {"ok"}  # an empty string: nothing was found
    assert "confidence x y width height" in capsys.readouterr().err


def test_an_image_without_a_row_in_a_submission_was_not_run(run):
    text = "patientId,PredictionString\nc,0.9 10 20 30 40\ne.png,\n"
    assert statuses(run(text)) == {"c": "ok", "d": "failed", "e": "ok", "f": "failed"}


def test_the_submission_of_vinbigdata_has_classes_and_corners(tmp_path):
    states = {
        "lung_opacity": ["present", "absent"] * 3,
        "nodule_mass": ["absent", "absent", "present"] * 2,
    }
    roles = ["train", "train", "val", "val", "test", "test"]
    folder = table_set(tmp_path / "set", list("abcdef"), states, width=100, height=80, split=roles)
    text = (
        "image_id,PredictionString\nc,7 0.9 10 20 40 60 8 0.4 1 2 4 6\nd,14 1 0 0 1 1\n"
        "e,14 0.3 0 0 1 1 7 0.5 5 6 12 14\nf,\n"
    )
    (tmp_path / "preds.csv").write_text(text)
    predictions = import_folder.import_file(
        tmp_path / "preds.csv", folder, tmp_path / "out", ImportOptions("V")
    )
    assert predictions.boxes[["image_id", "finding", *EDGES, "score"]].to_numpy().tolist() == [
        ["c", "lung_opacity", 10, 20, 40, 60, 0.9],
        ["c", "nodule_mass", 1, 2, 4, 6, 0.4],
        ["e", "lung_opacity", 5, 6, 12, 14, 0.5],
    ]
    assert set(statuses(predictions).values()) == {"ok"}
    in_memory = import_folder.read_predictions(
        pd.read_csv(tmp_path / "preds.csv"), folder, ImportOptions("V")
    )
    assert in_memory.tables["boxes"].equals(predictions.boxes)
