"""`cxr compare --truth`: true boxes and result files are evaluated as a prepared data set is."""

import json
import random
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.sources.truth_files import truth_set
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.import_predictions import import_predictions
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.targets import chosen_targets
from tests.scripts.small_sets import cxr, refusal, table_set


def write_results(folder: Path) -> None:
    """Write a COCO truth of 60 images, the results of two programs and a list of patients."""
    random.seed(0)
    names = [f"p{n // 3}-{n}" for n in range(60)]
    truth = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "nodule"}]}
    results = {"a": [], "b": []}
    for n, name in enumerate(names):
        truth["images"].append({"id": n, "file_name": f"{name}.png", "width": 400, "height": 400})
        lesion = [random.randint(50, 250), random.randint(50, 250), 60, 60]  # noqa: S311
        if n % 2:
            annotation = {"id": n + 1, "image_id": n, "category_id": 1, "iscrowd": 0, "area": 3600}
            truth["annotations"].append(annotation | {"bbox": lesion})
        for program, shift in (("a", 8), ("b", 25)):
            box = [edge + random.randint(-shift, shift) for edge in lesion]  # noqa: S311
            score = random.betavariate(4, 2) if n % 2 else random.betavariate(2, 3)
            results[program].append({"image_id": n, "category_id": 1, "bbox": box, "score": score})
    for file, content in {"truth": truth, **results}.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    rows = [f"{name},{name.split('-')[0]}" for name in names]
    (folder / "patients.csv").write_text("\n".join(["image_id,patient_id", *rows]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truth and result files, and images to prepare."""
    folder = tmp_path_factory.mktemp("files")
    write_results(folder)
    (folder / "images").mkdir()
    shade = np.linspace(20, 200, 400)[None] * np.linspace(0.5, 1, 400)[:, None]
    for number, image in enumerate(json.loads((folder / "truth.json").read_text())["images"]):
        pixels = (shade + number / 2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / image["file_name"])
    return folder


def compare_files(folder: Path, truth: str = "truth.json", **options: Any) -> Any:
    systems = {"A": folder / "a.json", "B": folder / "b.json"}
    options = {"patients": folder / "patients.csv", "replicates": 100, **options}
    return compare(systems, truth=folder / truth, **options)


@pytest.fixture(scope="module")
def report(folder: Path) -> Any:
    return compare_files(folder)


@pytest.mark.parametrize("name", ["a.json", "a.xml"])
def test_label_files_of_other_formats_are_refused_with_the_command_that_reads_them(tmp_path, name):
    size = {"imageHeight": 80, "imageWidth": 100}
    texts = {
        "a.json": json.dumps({"shapes": [], "imagePath": "a.png", "imageData": None, **size}),
        "a.xml": "<annotation><filename>a.png</filename></annotation>",
    }
    labels = tmp_path / "labels"
    labels.mkdir()
    Image.new("L", (100, 80)).save(labels / "a.png")
    (labels / name).write_text(texts[name])
    (tmp_path / "truth.csv").write_text("image_id,label\na,1\n")
    (tmp_path / "s.csv").write_text("image_id,score\na,0.5\n")
    systems = {"A": tmp_path / "s.csv"}
    for truth in (labels, labels / name):
        with pytest.raises(InputError, match=rf"^{re.escape(str(truth))}: .*cxr prepare"):
            compare(systems, truth=truth)
        with pytest.raises(InputError, match=rf"^{re.escape(str(truth))}: .*cxr prepare"):
            compare(systems, truth=tmp_path / "truth.csv", boxes=truth)


def test_a_spreadsheet_of_true_boxes_is_read_and_an_impossible_side_is_named(tmp_path):
    table = pd.DataFrame({"file": ["a.png", "b.png"], "label": ["mass", "normal"]})
    for edge, value in (("xmin", 10), ("ymin", 20), ("xmax", 30), ("ymax", 40)):
        table[edge] = [value, None]
    table = table.assign(image_width=100, image_height=80)
    table.to_excel(tmp_path / "truth.xlsx", index=False)
    truth = truth_set(tmp_path / "truth.xlsx", None, print)
    assert truth.boxes[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[10, 20, 30, 40]]
    for name, wrong in (("t.csv", "csv"), ("t.json", "json")):
        images = [{"id": 1, "file_name": "a.png", "width": 10**30, "height": 80}]
        boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 20, 20]}]
        coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "mass"}]}
        text = table.assign(image_width="1e30").to_csv(index=False)
        (tmp_path / name).write_text(text if wrong == "csv" else json.dumps(coco))
        with pytest.raises(InputError, match=r"'?a(\.png)?'?: .*1e\+30 px"):
            truth_set(tmp_path / name, None, print)


def test_truth_equals_prepare_import_and_compare_to_the_bit(folder, report, tmp_path):
    ids = pd.read_csv(folder / "patients.csv")["image_id"]
    pd.DataFrame({"image_id": ids, "role": "test"}).to_csv(tmp_path / "roles.csv", index=False)
    data = prepare(
        folder, tmp_path / "data", format="coco", split=tmp_path / "roles.csv",
        patient_pattern=r"^(p\d+)-", workers=0,
    )  # fmt: skip
    systems = {}
    for name in ("A", "B"):
        results, truth = folder / f"{name.lower()}.json", folder / "truth.json"
        options = {"data": data, "name": name, "coco_truth": truth}
        systems[name] = import_predictions(results, out=tmp_path / name, **options)
    report_prepared = compare(systems, data=data, replicates=100)
    for table in ("figures", "tests", "groups"):
        with_pixels = getattr(report_prepared, table)
        if table == "groups":  # what is told without looking at the lungs needs pixels
            with_pixels = with_pixels[~with_pixels["topic"].str.contains("shortcut")]
        pd.testing.assert_frame_equal(getattr(report, table), with_pixels)
    assert report.headline == report_prepared.headline
    assert report.figures["ci_low"].notna().sum() > 20


def test_average_precision_is_that_of_pycocotools(folder, report):
    truth = COCO(str(folder / "truth.json"))
    evaluated = COCOeval(truth, truth.loadRes(str(folder / "a.json")), "bbox")
    evaluated.evaluate()
    evaluated.accumulate()
    evaluated.summarize()
    figures_a = report.figures.query(
        "first == 'A' and second == '' and subgroup == 'all'"
    ).set_index("metric")
    assert figures_a.loc[["ap", "ap50"], "estimate"].tolist() == pytest.approx(evaluated.stats[:2])


def test_truth_as_csv_or_yolo_gives_the_same_figures(folder, report):
    content = json.loads((folder / "truth.json").read_text())
    boxes = {box["image_id"]: box["bbox"] for box in content["annotations"]}
    rows = ["file,x,y,width,height,label"]
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("names: [nodule]")
    for image in content["images"]:
        name, box = image["file_name"], boxes.get(image["id"])
        rows.append(f"{name},{','.join(map(str, box))},nodule" if box else f"{name},,,,,")
        shares = [(box[0] + 30) / 400, (box[1] + 30) / 400, 0.15, 0.15] if box else []
        text = f"0 {' '.join(map(str, shares))}" if box else ""
        (folder / "labels" / name).with_suffix(".txt").write_text(text)
    (folder / "truth.csv").write_text("\n".join(rows))
    results = pd.DataFrame(json.loads((folder / "a.json").read_text()))
    edges = pd.DataFrame(results["bbox"].tolist(), columns=["x1", "y1", "x2", "y2"])
    edges[["x2", "y2"]] += edges[["x1", "y1"]].to_numpy()
    names = [content["images"][number]["file_name"] for number in results["image_id"]]
    edges.assign(image_id=names, score=results["score"]).to_csv(folder / "a.csv", index=False)
    figures_a = report.figures.query("first == 'A' and second == ''")["estimate"].to_numpy()
    for truth in (folder / "truth.csv", folder):
        people = folder / "patients.csv"
        other = compare({"A": folder / "a.csv"}, truth=truth, patients=people, replicates=100)
        np.testing.assert_allclose(other.figures["estimate"].to_numpy(), figures_a, atol=1e-9)


def test_without_patients_intervals_are_by_image_and_this_is_the_first_caution(folder):
    report = compare_files(folder, patients=None)
    assert report.cautions[0].startswith("Intervals are by image")
    assert "patient_id" in report.cautions[0]


def test_a_finished_report_answers_the_same_files_only(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    call = "compare --truth truth.json A=a.json B=b.json"
    rest = ("--patients patients.csv --out report", "--policy threshold=0.5")
    commands = [shlex.split(f"{call} {words}") for words in rest]
    assert [cxr(*command) for command in [*commands, commands[0]]] == [0, 0, 0]
    output = capsys.readouterr().err
    assert "this report exists already" in output
    assert "--policy threshold=T" in output
    assert cxr(*[argument.replace("A=a", "A=b") for argument in commands[0]]) == 2
    assert "A had other predictions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": [{"image_id": 77}]}, "a.json: entry 0: image 77 is not in"),
        ({"a": [{"bbox": [1, 2, 3]}]}, "a.json: entry 0 needs image_id"),
        ({"a": [{"bbox": [9, 9, 0, 5]}]}, "a.json: entry 0, image 'x': box [9, 9, 0, 5], r"),
        ({"a": [{"bbox": [40, 40, 90, 80]}]}, "--columns a.box_f"),
        ({"a": None}, "a.json: "),
        ({"patients": "image_id,patient_id\nx,p\n"}, "p.csv: has no line for image 'y'"),
        ({"patients": "image_id,patient_id\nx,p\ny,\n"}, "p.csv: line 3: patient_id"),
        ({"annotations": []}, "truth.json: no image"),
        ({"images": [{"id": 1, "file_name": "y.png"}]}, "y.png: image id 1"),
        ({"boxes": [9, 9, 0, 9]}, "image 'x': box [9, 9, 0, 9]"),
        ({"categories": [{"id": 6, "name": "Mass"}]}, "mass, nodule"),
        ({"name": "truth.xml"}, "truth.xml: "),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_file_and_position(change, message, tmp_path, capsys):
    size, annotation = {"width": 100, "height": 90}, {"image_id": 1, "category_id": 5}
    images = [{"id": 1, "file_name": "x.png", **size}, {"id": 2, "file_name": "y.png", **size}]
    categories = [{"id": 5, "name": "Nodule"}, *change.get("categories", [])]
    boxes = [{"id": 1, **annotation, "bbox": change.get("boxes", [9, 9, 30, 30])}]
    truth = {"images": [*images, *change.get("images", [])], "categories": categories}
    truth["annotations"] = change.get("annotations", boxes)
    path = tmp_path / change.get("name", "truth.json")
    path.write_text(json.dumps(truth))
    result = {**annotation, "bbox": [9, 9, 30, 30], "score": 0.5}
    results = [result | entry for entry in change.get("a", [{}]) or []]
    (tmp_path / "a.json").write_text(json.dumps(results))
    patients = change.get("patients", "image_id,patient_id\nx,p\ny,q\n")
    (tmp_path / "p.csv").write_text(patients)
    line = refusal(
        capsys, "compare", "--truth", path, "--patients", tmp_path / "p.csv", tmp_path / "a.json"
    )
    assert message in line


def test_folder_of_images_gives_the_report_its_pictures(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    call = "compare --truth truth.json A=a.json B=b.json --policy threshold=0.5"
    assert cxr(*shlex.split(f"{call} --images images --out pictures")) == 0
    assert list((folder / "pictures" / "overlays").glob("*.png"))
    options = {"policy": ["threshold=0.5"], "out": tmp_path / "report"}
    compare_files(folder, **options)
    page = tmp_path / "report" / "report.html"
    assert "<article" not in page.read_text()
    with pytest.raises(InputError, match="overwrite=True"):
        compare_files(folder, images=folder / "images", **options)
    report = compare_files(folder, images=folder / "images", overwrite=True, **options)
    html = page.read_text()
    assert '<article class="case' in html
    assert "data:image/jpeg;base64," in html
    assert list((tmp_path / "report" / "overlays").glob("*.png"))
    again = compare_files(folder, images=["all", folder / "images"], **options)
    assert again.to_frame().equals(report.to_frame())


def test_folder_of_images_is_for_a_truth_and_for_one_folder(folder, tmp_path):
    with pytest.raises(InputError, match="images="):
        compare_files(folder, images=[folder, folder / "images"])
    with pytest.raises(InputError, match=r"images=.*absent.*: .*nor a folder"):
        compare_files(folder, images=tmp_path / "absent")


def test_a_list_of_patients_may_have_the_names_of_columns_that_other_tables_have(
    folder, report, tmp_path
):
    rows = pd.read_csv(folder / "patients.csv")
    renamed = rows.rename(columns={"image_id": "Image Index", "patient_id": "Patient ID"})
    renamed.to_csv(tmp_path / "patients.csv", index=False)
    other = compare_files(folder, patients=tmp_path / "patients.csv")
    pd.testing.assert_frame_equal(report.to_frame(), other.to_frame())


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Labels of eight images, and two score files whose columns have different names."""
    ids = [f"i{number}" for number in range(8)]
    labels = [0, 1] * 4
    scores = [label * 0.5 + 0.1 for label in labels]
    wrong = [0.9 - score for score in scores]
    frames = {
        "truth": pd.DataFrame({"image_id": ids, "label": labels}),
        "a": pd.DataFrame({"image_id": ids, "prob": wrong, "p_a": scores}),
        "b": pd.DataFrame({"case": ids, "p_b": scores}),
    }
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("second", ["Net v1.0", "b"])  # its name, or that of its file
def test_columns_are_named_for_the_file_of_one_system(tables, second):
    named = ["a.score=p_a", f"{second}.score=p_b", f"{second}.image=case"]
    report = compare(
        [str(tables / "a.csv"), f"Net v1.0={tables / 'b.csv'}"],
        truth=tables / "truth.csv", columns=named, replicates=100,
    )  # fmt: skip
    figures = (
        report.to_frame().query("metric == 'auroc' and second == ''").set_index("first")["estimate"]
    )
    assert figures[["a", "Net v1.0"]].tolist() == [1.0, 1.0]


def test_columns_of_a_frame_are_named_for_its_system(tables):
    frames = {name: pd.read_csv(tables / f"{name}.csv") for name in ("a", "b")}
    named = ["a.score=p_a", "b.score=p_b", "b.image=case"]
    truth = pd.read_csv(tables / "truth.csv")
    report = compare(frames, truth=truth, columns=named, replicates=100)
    figures = (
        report.to_frame().query("metric == 'auroc' and second == ''").set_index("first")["estimate"]
    )
    assert figures[["a", "b"]].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["c.score=p_b"], r"c\.score=p_b\W+.*'c'; the systems are a, b"),
        (["b.scores=p_b"], r"b\.scores=p_b\W+.*SYSTEM\.score"),
        ([], r"b\.csv: .*'image_id'.*columns=\"b\.image=COLUMN"),
        (["b.image=case"], r"b\.csv: column 'score' .*columns=\"b\.score=COLUMN"),
    ],
)
def test_a_column_that_is_not_found_is_named_for_its_file(tables, named, message):
    systems = [str(tables / "a.csv"), str(tables / "b.csv")]
    with pytest.raises(InputError, match=message) as error:
        compare(systems, truth=tables / "truth.csv", columns=named)
    assert "import" not in str(error.value)


def test_what_to_do_about_unknown_images_is_possible_in_compare(tables):
    pd.DataFrame({"image_id": ["i0", "other"], "score": 0.5}).to_csv(tables / "c.csv", index=False)
    with pytest.raises(InputError, match=r"c\.csv: 1 image is .*'other'.*remove") as error:
        compare([str(tables / "c.csv")], truth=tables / "truth.csv")
    assert "ignore-unknown" not in str(error.value)


def test_scores_without_a_finding_are_about_the_chosen_target(tables):
    labels = pd.read_csv(tables / "truth.csv")
    rows = [(i, f, int(v)) for i, v in labels.itertuples(index=False) for f in ("mass", "nodule")]
    several = pd.DataFrame(rows, columns=["image_id", "finding", "state"])
    several.to_csv(tables / "several.csv", index=False)
    options = {"columns": ["a.score=p_a"], "replicates": 100}
    report = compare(
        [str(tables / "a.csv")], truth=tables / "several.csv", target=["nodule"], **options
    )
    assert report.to_frame().query("metric == 'auroc'")["estimate"].tolist() == [1.0]


def test_columns_of_result_files_beside_a_data_set_are_refused(tables, tmp_path):
    with pytest.raises(InputError, match=r'columns="score=p_a": .*cxr import'):
        compare([str(tables / "a.csv")], data=_any_data_set(tmp_path), columns=["score=p_a"])


def _any_data_set(folder: Path) -> Path:
    states = {"opacity": ["present", "absent"] * 3}
    roles = ["train", "train", "val", "val", "test", "test"]
    return table_set(folder, list("abcdef"), states, width=100, height=80, split=roles)


def test_two_spellings_are_joined_to_one_target(tables):
    ids = [f"i{number:02d}" for number in range(24)]
    labels = ["opacitiy", *["opacity"] * 11, *["normal"] * 12]
    scores = [1.0] * 12 + [0.0] * 12
    pd.DataFrame({"image_id": ids, "label": labels}).to_csv(tables / "t.csv", index=False)
    pd.DataFrame({"image_id": ids, "score": scores}).to_csv(tables / "s.csv", index=False)
    joined = ["opacity=opacity,opacitiy"]
    report = compare([str(tables / "s.csv")], truth=tables / "t.csv", target=joined, replicates=100)
    (row,) = report.to_frame().query("metric == 'auroc'").to_dict("records")
    assert (row["estimate"], row["n_images"], row["n_positive"]) == (1.0, 24, 12)


def test_a_target_is_defined_for_a_truth_and_not_for_a_data_set(tables, tmp_path):
    data = _any_data_set(tmp_path)
    with pytest.raises(InputError, match=r"opacity=opacity,other: .*cxr prepare --target"):
        chosen_targets(DataSet.open(data), ["opacity=opacity,other"])
    assert [t.name for t in chosen_targets(DataSet.open(data), ["opacity=opacity"])] == ["opacity"]


def test_a_rule_that_needs_validation_images_is_refused_for_a_truth_without_them(tables, capsys):
    ids = [f"i{number:02d}" for number in range(24)]
    labels = [number % 2 for number in range(24)]
    pd.DataFrame({"image_id": ids, "label": labels}).to_csv(tables / "t.csv", index=False)
    pd.DataFrame({"image_id": ids, "score": np.linspace(0, 1, 24)}).to_csv(
        tables / "s.csv", index=False
    )
    call = ["compare", tables / "s.csv", "--truth", tables / "t.csv", "--replicates", "100"]
    assert cxr(*call, "--policy", "max_f1") == 2
    assert "--policy max_f1" in capsys.readouterr().err
    assert cxr(*call, "--policy", "threshold=0.5") == 0


def test_a_truth_that_does_not_exist_is_called_missing(tables, capsys):
    assert cxr("compare", tables / "s.csv", "--truth", tables / "none.csv") == 2
    assert "none.csv: no such file" in capsys.readouterr().err


def test_other_groups_of_the_same_labels_are_another_call(tmp_path):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"label": [0, 1] * 30, "sex": ["F", "M", "M"] * 20})
    scores = {"A": rng.random(60)}
    given = {"out": tmp_path / "report", "replicates": 100}
    compare(scores, truth=frame, **given)
    compare(scores, truth=frame, **given)  # opens the report
    with pytest.raises(InputError, match="other images, labels or roles"):
        compare(scores, truth=frame.assign(sex="F"), **given)
