"""`cxr compare --truth`: labels and result files are judged as a prepared data set is."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from scripts.compare import compare
from scripts.import_predictions import import_predictions
from scripts.prepare import prepare
from tests.scripts.small_sets import cxr, refusal

N, WIDTH, HEIGHT = 40, 120, 100
NAMES = [f"p{number // 3:02d}_film{number:02d}" for number in range(N)]


def box(rng: np.random.Generator) -> list[float]:
    x, y, width, height = rng.uniform((0, 0, 20, 20), (60, 50, 50, 40)).round(1).tolist()
    return [x, y, width, height]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO truth of boxes on half of the images, results of A and B, images, and patients."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(3)
    (folder / "set" / "images").mkdir(parents=True)
    truth: dict[str, Any] = {"images": [], "annotations": []}
    truth["categories"] = [{"id": 5, "name": "Lung Opacity"}]
    results: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    rows, shade = [], np.linspace(20, 200, WIDTH)[None] * np.linspace(0.5, 1, HEIGHT)[:, None]
    for number, name in enumerate(NAMES):
        image = Image.fromarray((shade + rng.uniform(0, 9, shade.shape)).astype(np.uint8))
        image.save(folder / "set" / "images" / f"{name}.png")
        entry = {"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        truth["images"].append(entry)
        boxes = [box(rng) for _ in range(number % 2 * (1 + number % 3))]
        own = {"image_id": number, "category_id": 5}
        for edges in boxes:
            ids = {"id": len(truth["annotations"]) + 1, "iscrowd": 0}
            area = edges[2] * edges[3]
            truth["annotations"].append({**own, **ids, "bbox": edges, "area": area})
            rows.append([name, *edges, "Lung Opacity"])
        rows += [] if boxes else [[name, "", "", "", "", ""]]
        for system, noise in (("a", 4), ("b", 9)):
            near = [(np.array(edges) + rng.normal(0, noise, 4)).clip(1) for edges in boxes]
            for edges in [*near, *(box(rng) for _ in range(2))]:
                score = round(float(rng.uniform(0.2 * (len(near) > 0), 1)), 3)
                edges = np.minimum(edges, [115, 95, *(np.array([WIDTH, HEIGHT]) - edges[:2])])
                results[system].append({**own, "bbox": edges.round(2).tolist(), "score": score})
    (folder / "set" / "truth.json").write_text(json.dumps(truth))
    for system, of_system in results.items():
        (folder / f"{system}.json").write_text(json.dumps(of_system))
    patients = pd.DataFrame({"image_id": NAMES, "patient_id": [name[:3] for name in NAMES]})
    patients.to_csv(folder / "p.csv", index=False)
    columns = ["image_id", "x", "y", "width", "height", "label"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "truth.csv", index=False)
    return folder


def judge(folder: Path, truth: str = "set/truth.json", **options: Any) -> Any:
    systems = {"A": folder / "a.json", "B": folder / "b.json"}
    options = {"patients": folder / "p.csv", "replicates": 100, **options}
    return compare(systems, truth=folder / truth, **options)


@pytest.fixture(scope="module")
def report(folder: Path) -> Any:
    return judge(folder)


def test_it_is_what_prepare_import_and_compare_say_to_the_bit(folder, report, tmp_path):
    roles = pd.DataFrame({"image_id": NAMES, "role": "test"})
    roles.to_csv(tmp_path / "roles.csv", index=False)
    data = prepare(
        folder / "set", tmp_path / "data", format="coco", split=tmp_path / "roles.csv",
        patient_pattern=r"^(p\d+)_", workers=0,
    )  # fmt: skip
    systems = {}
    for name in ("A", "B"):
        file, truth = folder / f"{name.lower()}.json", folder / "set" / "truth.json"
        systems[name] = import_predictions(
            file, data=data, out=tmp_path / name, name=name, coco_truth=truth
        )
    known = compare(systems, data=data, replicates=100)
    for table in ("figures", "differences", "tests", "failures"):
        with_pixels = getattr(known, table)
        if table == "failures":  # what is told without looking at the lungs needs pixels
            with_pixels = with_pixels[~with_pixels["topic"].str.contains("shortcut")]
        pd.testing.assert_frame_equal(getattr(report, table), with_pixels)
    assert report.headline == known.headline
    assert report.figures["ci_low"].notna().sum() > 20


def test_average_precision_is_that_of_pycocotools(folder, report):
    truth = COCO(str(folder / "set" / "truth.json"))
    judged = COCOeval(truth, truth.loadRes(str(folder / "a.json")), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    of_a = report.figures.query("system == 'A' and subgroup == 'all'").set_index("metric")
    assert of_a.loc[["ap", "ap50"], "estimate"].tolist() == pytest.approx(judged.stats[:2])


def test_truth_as_csv_or_yolo_gives_the_same_figures(folder, report):
    labels = folder / "yolo" / "labels"
    labels.mkdir(parents=True)
    shutil.copytree(folder / "set" / "images", folder / "yolo" / "images")
    (folder / "yolo" / "data.yaml").write_text("names: [lung opacity]")
    for name, rows in pd.read_csv(folder / "truth.csv").groupby("image_id"):
        sides = rows[["width", "height"]].to_numpy() / (WIDTH, HEIGHT)
        centres = rows[["x", "y"]].to_numpy() / (WIDTH, HEIGHT) + sides / 2
        lines = [" ".join(map(str, row)) for row in np.hstack([centres, sides])]
        text = "\n".join(f"0 {line}" for line in lines) if rows["x"].notna().all() else ""
        (labels / f"{name}.txt").write_text(text)
    results = pd.DataFrame(json.loads((folder / "a.json").read_text()))
    edges = np.array(results["bbox"].tolist())
    table = pd.DataFrame(np.hstack([edges[:, :2], edges[:, :2] + edges[:, 2:]]))
    table = table.set_axis(["x1", "y1", "x2", "y2"], axis=1)
    table["image_id"] = [f"{NAMES[number]}.png" for number in results["image_id"]]
    table.assign(score=results["score"]).to_csv(folder / "a.csv", index=False)
    of_a = report.figures.query("system == 'A'")["estimate"].to_numpy()
    for truth in ("truth.csv", "yolo"):
        systems = {"A": folder / "a.csv"}
        other = compare(systems, truth=folder / truth, patients=folder / "p.csv", replicates=100)
        np.testing.assert_allclose(other.figures["estimate"].to_numpy(), of_a, atol=1e-9)


def test_without_patients_intervals_are_by_image_and_that_is_said_first(folder, capsys):
    report = judge(folder, patients=None, progress=True)
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith("Intervals are by image, for ")
    assert "too narrow where patients have several" in first
    figures = next(number for number, line in enumerate(others) if line.startswith("A: AUROC 0."))
    assert figures < next(n for n, line in enumerate(others) if line.startswith("Resampling"))
    assert report.cautions[0].startswith("Intervals are by image, for no patient is known")
    assert report.figures["n_patients"].max() == N
    assert "labels alone keep no log" in report.comparison.provenance["looks"]["words"]


def test_a_finished_report_answers_the_same_files_and_refuses_others(folder, tmp_path, capsys):
    words = ["compare", "--truth", folder / "set" / "truth.json", f"A={folder / 'a.json'}"]
    words += ["--patients", folder / "p.csv", "--replicates", 100, "--out", tmp_path / "report"]
    assert cxr(*words) == cxr(*words) == 0
    told = capsys.readouterr().err
    assert "this report exists already" in told
    assert "no threshold is chosen; --policy threshold=T gives one" in told
    words[3] = f"A={folder / 'b.json'}"
    assert cxr(*words) == 2
    assert "A had other predictions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a": [{"image_id": 77}]}, "a.json: entry 0: image 77 is not in"),
        ({"a": [{"bbox": [1, 2, 3]}]}, "a.json: entry 0 needs image_id, bbox of four numbers"),
        ({"a": [{"bbox": [9, 9, 0, 5]}]}, "a.json: entry 0, image 'x': x1=9, y1=9, x2=9, y2=14; "),
        ({"a": [{"score": 9}]}, "a.json: entry 0, image 'x': score=9.0; scores must be numbers"),
        ({"a": None}, "a.json: holds no box; give results"),
        ({"patients": "image_id,patient_id\nx,p\n"}, "p.csv: has no line for image 'y' of"),
        ({"patients": "image_id,patient_id\nx,p\ny,\n"}, "p.csv: line 3: patient_id is empty"),
        ({"patients": "image_id,patient_id\nx,p\nx.png,q\n"}, "line 3: image_id='x' appears mo"),
        ({"annotations": []}, "truth.json: no image can be used; no label"),
        ({"images": [{"id": 1, "file_name": "y.png"}]}, "y.png: image id 1 appears more than once"),
        ({"boxes": [90, 80, 99, 99]}, "image 'x': a box ends at x=189, y=179, beyond 100 x 90 px"),
        ({"boxes": [9, 9, 0, 9]}, "x.png: bbox without size"),
        ({"categories": [{"id": 6, "name": "Mass"}]}, "has targets mass, nodule; choose one with"),
        ({"name": "truth.xml"}, "truth.xml: no COCO file, CSV, or folder of COCO, YOLO or CSV"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_its_file_and_place(change, says, tmp_path, capsys):
    size, own = {"width": 100, "height": 90}, {"image_id": 1, "category_id": 5}
    images = [{"id": 1, "file_name": "x.png", **size}, {"id": 2, "file_name": "y.png", **size}]
    categories = [{"id": 5, "name": "Nodule"}, *change.get("categories", [])]
    boxes = [{"id": 1, **own, "bbox": change.get("boxes", [9, 9, 30, 30])}]
    truth = {"images": [*images, *change.get("images", [])], "categories": categories}
    truth["annotations"] = change.get("annotations", boxes)
    path = tmp_path / change.get("name", "truth.json")
    path.write_text(json.dumps(truth))
    result = {**own, "bbox": [9, 9, 30, 30], "score": 0.5}
    results = [result | entry for entry in change.get("a", [{}]) or []]
    (tmp_path / "a.json").write_text(json.dumps(results))
    patients = change.get("patients", "image_id,patient_id\nx,p\ny,q\n")
    (tmp_path / "p.csv").write_text(patients)
    line = refusal(
        capsys, "compare", "--truth", path, "--patients", tmp_path / "p.csv", tmp_path / "a.json"
    )
    assert says in line
