"""The audit's page opens alone, shows the worst, and says nothing that is not so."""

import base64
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.audit.audit import Audit, audit
from cxr_compare.data_prep.audit.images import find_burned_in_text
from cxr_compare.data_prep.audit.page import render_audit, verdict, write_audit
from cxr_compare.data_prep.audit.pictures import ILLEGIBLE_PX, draw_picture
from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.duplicates.image_reader import open_reader
from cxr_compare.data_prep.sources.source_tables import ReadOptions

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.prepare import prepare
from cxr_compare.evaluation.inputs.file_facts import measure_shortcuts
from tests.outline import Outline
from tests.small_dicom import chest
from tests.stored_json import bind_tables, put_table

N = 48


SOURCE = re.compile(r"data:image/jpeg;base64,([^\"]+)")


def decoded(source: str) -> np.ndarray:
    """Return a picture of the page, uint8 (H, W, 3)."""
    return cv2.imdecode(np.frombuffer(base64.b64decode(source), np.uint8), cv2.IMREAD_COLOR)


def is_yellow(picture: np.ndarray) -> np.ndarray:
    """Return the pixels of the lines of boxes."""
    blue, _, red = np.moveaxis(picture.astype(int), -1, 0)
    return red - blue > 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DataSet:
    """48 images; b1 is a stretched copy of b0 under another patient; boxes on some."""
    folder = tmp_path_factory.mktemp("page")
    source = folder / "source"
    source.mkdir()
    for n in range(N):
        pixels = chest(n, 150, 180) if n != 1 else chest(0, 150, 180) // 2 + 30
        cv2.imwrite(str(source / f"b{n}.png"), pixels)
    ids = [f"b{n}" for n in range(N)]
    patients = [f"p{n}" for n in range(N)]
    images = pd.DataFrame({"image_id": ids, "patient_id": patients})
    images["path"] = [f"{name}.png" for name in ids]
    images["view"] = ["AP", "PA"] * (N // 2)
    images["age_years"] = [400] + [50] * (N - 1)
    images.to_csv(source / "images.csv", index=False)
    states = pd.DataFrame({"image_id": ids, "finding": "mass", "state": [1, 1, 0, 0] * (N // 4)})
    states.to_csv(source / "labels.csv", index=False)
    box = {"image_id": ["b0"], "x1": [10], "y1": [20], "x2": [60], "y2": [50], "finding": "mass"}
    pd.DataFrame(box).to_csv(source / "boxes.csv", index=False)
    tables = tuple(source / f"{name}.csv" for name in ("images", "labels", "boxes"))
    options = PrepareOptions("table", ReadOptions(labels=tables), workers=1)
    prepare(source, folder / "set", options)
    return DataSet.open(folder / "set")


@pytest.fixture(scope="module")
def found(dataset) -> Audit:
    return audit(dataset, measure_shortcuts=measure_shortcuts)


@pytest.fixture(scope="module")
def html(dataset, found) -> str:
    return render_audit(dataset, found)


def test_page_is_well_formed_and_needs_nothing_from_outside(html):
    outline = Outline(html)
    assert outline.open == outline.problems == []
    assert "<script" not in html
    for address in re.findall(r'(?:href|src)="([^"]+)"', html):
        assert address.startswith(("data:", "#")) or address in ("audit_cases.csv", "exclude.csv")


def test_page_opens_with_the_verdict(html, found):
    words = re.search(r"<h1>(.*?)</h1>", html, re.DOTALL)[1]
    assert words == verdict(found.counts)
    assert html.index("<h1>") < html.index('class="problem')


def test_copies_are_shown_side_by_side_with_their_boxes(html, found):
    (problem,) = [p for p in found.problems if p.check == "near_patients"]
    assert problem.images == (("b0", "b1"),)
    article = next(a for a in html.split("<article") if "A copy of the image" in a)
    pictures = [decoded(source) for source in SOURCE.findall(article)]
    assert [is_yellow(picture).any() for picture in pictures] == [True, False]
    rows, columns = np.nonzero(is_yellow(pictures[0]))
    height, width, _ = pictures[0].shape  # of 150 x 180 px
    assert (columns.min(), rows.min()) == pytest.approx((width / 18, height * 20 / 150), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((width / 3, height / 3), abs=2)


def test_a_pair_is_named_and_each_card_says_patient_label_role_and_path(html, dataset):
    article = next(a for a in html.split("<article") if "A copy of the image" in a)
    assert "1 pair, 1 shown" in " ".join(article.split())
    roles = dataset.split().set_index("image_id")["role"]
    for number, patient in ((0, "source:p0"), (1, "source:p1")):
        role = roles[f"b{number}"]
        assert f"<br>patient {patient}<br>{role}: Mass<br>b{number}.png</figcaption>" in article


def test_each_case_in_the_csv_has_its_group_patient_path_label_and_role(dataset, found, tmp_path):
    write_audit(dataset, found, tmp_path, pixels=False)
    cases = pd.read_csv(tmp_path / "audit_cases.csv").set_index("check").loc["near_patients"]
    columns = ["group", "image_id", "patient_id", "path", "label"]
    assert cases[columns].to_numpy().tolist() == [
        [1, "b0", "source:p0", "b0.png", "Mass"],
        [1, "b1", "source:p1", "b1.png", "Mass"],
    ]
    roles = dataset.split().set_index("image_id")["role"]
    assert cases["role"].tolist() == roles[["b0", "b1"]].tolist()


def test_images_to_leave_out_are_listed_once_and_an_edited_list_stays(dataset, found, tmp_path):
    page = write_audit(dataset, found, tmp_path, pixels=False)
    rows = pd.read_csv(tmp_path / "exclude.csv")
    assert rows["image_id"].tolist() == ["b1"]
    assert rows["reason"][0].endswith("one of the patient ids is wrong; b0 stays")
    assert 'href="exclude.csv"' in page.read_text()
    (tmp_path / "exclude.csv").write_text("image_id,reason\nb0,\n")
    write_audit(dataset, found, tmp_path, pixels=False)
    assert (tmp_path / "exclude.csv").read_text() == "image_id,reason\nb0,\n"


def test_of_copies_one_stays_and_of_those_with_two_labels_none():
    def problem(check, groups):
        rows = [(group, i, k) for group, ids in groups.items() for k, i in enumerate(ids.split())]
        table = pd.DataFrame(rows, columns=["group", "image_id", "place"])
        return Problem.from_groups(check, "error", check, table, differ="place")

    problems = (
        problem("image_label", {1: "a b"}),
        problem("image_patients", {1: "a b", 2: "c d e"}),
        problem("near_repeated", {1: "d f", 2: "b g"}),
        Problem.from_cases("view_lateral", "warning", "lateral", np.array(["l"])),
        Problem.from_cases("burned_in_text", "warning", "text", np.array(["t"])),
    )
    out = Audit(problems, {}).exclusions.set_index("image_id")["reason"]
    assert out.to_dict() == {
        "a": "image_label",
        "b": "image_label",
        "d": "image_patients; c stays",
        "e": "image_patients; c stays",
        "l": "lateral",
    }


def test_every_problem_is_on_the_page_with_what_to_do(html, found):
    assert html.count("<article") == len(found.problems)
    for problem in found.problems:
        assert not problem.advice or f"What to do:</strong> {problem.advice[:12]}" in html


def test_ids_of_the_source_are_escaped(dataset, found):
    ids = np.array(["<script>alert(1)</script>"])
    problem = Problem.from_cases("x", "error", "<b>bold</b> thing", ids)
    html = render_audit(dataset, Audit((problem,), found.checked, found.facts))
    assert "<script" not in html
    assert "<b>bold" not in html


def test_text_that_was_sought_is_framed_in_a_crop_and_its_place_is_in_the_csv(dataset, tmp_path):
    folder = shutil.copytree(dataset.folder, tmp_path / "set")
    source = shutil.copytree(dataset.source_root, tmp_path / "source")
    decode = read_table(folder / "decode.parquet", "decode").set_index("image_id")
    named = cv2.putText(chest(5, 150, 180) // 4, "DOE JANE 57", (20, 60), 0, 0.5, 255, 1)
    cv2.imwrite(str(source / "b5.png"), named)
    decode.loc["b7", "burned_in_annotation"] = "yes"
    put_table(decode.reset_index(), folder / "decode.parquet", "decode")
    images = read_table(folder / "images.parquet", "images")
    files = [file_digest(source / path, "sha256") for path in images["path"]]
    put_table(images.assign(file_sha256=files), folder / "images.parquet", "images")
    bind_tables(folder)
    info = DataSet.open(folder).info.with_values(source_root=str(source))
    other = DataSet(folder, info)
    assert "suspected text" not in write_audit(other, audit(other), tmp_path).read_text()
    rows = pd.read_csv(tmp_path / "audit_cases.csv").set_index("check")
    assert rows.loc["burned_in_text", "image_id"] == "b7"  # as its header says

    found = audit(other, text=find_burned_in_text(other, 0))
    html = write_audit(other, found, tmp_path).read_text()
    assert re.findall(r"<code>(\w+)</code><br>suspected text", html) == ["b5"]
    assert "2 images, 2 shown; all in" in html
    pattern = r'width="(\d+)" height="\d+" alt="Image (\w+)"'
    sizes = {image_id: int(width) for width, image_id in re.findall(pattern, html)}
    assert {image_id for image_id, width in sizes.items() if width <= ILLEGIBLE_PX} == {"b7"}
    rows = pd.read_csv(tmp_path / "audit_cases.csv").set_index("check").loc["burned_in_text"]
    assert rows["image_id"].tolist() == ["b5", "b7"]
    assert rows[["x1", "y1", "x2", "y2"]].notna().all(axis=1).tolist() == [True, False]
    x1, y1, x2, y2 = rows[["x1", "y1", "x2", "y2"]].iloc[0]
    assert 18 < x1 < 24 < 100 < x2 < 130
    assert 45 < y1 < 55 < y2 < 64
    shutil.rmtree(source)  # crops come from the originals; without them the page has none
    assert "suspected text" not in write_audit(other, found, tmp_path).read_text()


def test_every_case_is_in_the_csv_and_only_the_first_are_in_the_json(dataset, tmp_path):
    ids = [f"b{number}" for number in range(30)]
    problem = Problem.from_cases("x", "error", "wrong", np.array(ids), shown=ids[:24])
    write_audit(dataset, Audit((problem,), {"images": N}), tmp_path, pixels=False)
    assert pd.read_csv(tmp_path / "audit_cases.csv")["image_id"].tolist() == ids
    (read,) = Audit.read(tmp_path / "audit.json").problems
    assert (len(read.images), len(read.examples), len(read.cases)) == (24, 5, 0)


def test_without_pixels_the_page_has_no_images(dataset, found):
    assert "data:image/jpeg" not in render_audit(dataset, found, pixels=False)


def test_gone_images_are_noted_and_copies_found_by_fingerprint(dataset, tmp_path):
    source = dataset.source_root
    away = source.rename(source.with_name("elsewhere"))
    try:
        found = audit(dataset)
        page = write_audit(dataset, found, tmp_path)
    finally:
        away.rename(source)
    checks = {p.check: p for p in found.problems}
    assert checks["images_gone"].severity == "warning"
    assert checks["near_patients"].count == 2
    assert "no longer in" in page.read_text()
    assert Audit.read(tmp_path / "audit.json") == found


def test_images_are_read_from_the_store_where_there_is_one(dataset, tmp_path):
    folder = shutil.copytree(dataset.folder, tmp_path / "set")
    other = DataSet.open(folder)
    from cxr_compare.data_prep.store.build_pixel_store import build_pixel_store

    build_pixel_store(folder, other.images, other.source_root, 128)
    read, lacking = open_reader(other)
    assert lacking is None
    assert read("b3").shape == (107, 128)  # 150 x 180 px without the black border
    small = cv2.resize(chest(3, 150, 180), (128, 107), interpolation=cv2.INTER_AREA)
    assert np.abs(read("b3").astype(int) - small).mean() < 3


def test_a_set_of_fourteen_targets_stays_small(dataset, found):
    rows = [r | {"target": f"t{n}"} for n in range(14) for r in found.facts["prevalence"]]
    bars = [r | {"target": f"t{n}"} for n in range(14) for r in found.facts["shortcuts"]]
    facts = found.facts | {"prevalence": rows, "shortcuts": bars}
    html = render_audit(dataset, Audit(found.problems, found.checked, facts))
    assert len(html) < 1_000_000
    assert html.count("<details") == 2 * 14


def test_an_audit_without_facts_has_a_page(dataset, tmp_path):
    page = write_audit(dataset, Audit((), {"images": 0}), tmp_path)
    assert "No error was found that invalidates results" in page.read_text()


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ((1, 0, 0), "1 error invalidates results on this data set."),
        ((12, 1, 0), "12 errors invalidate results on this data set; 1 warning may affect them."),
        ((0, 2, 9), "No error was found; 2 warnings may affect results."),
        ((0, 0, 0), "No error was found that invalidates results."),
    ],
)
def test_the_verdict_counts(counts, says):
    assert verdict(dict(zip(("error", "warning", "info"), counts, strict=True))) == says


def test_the_worst_problem_is_named_first(dataset):
    worst = Problem("a", "error", "patients in two roles", 1)
    note = Problem("b", "info", "something else", 1)
    html = render_audit(dataset, Audit((worst, note), {"images": N}), pixels=False)
    opening = html[html.index("<h1>") : html.index("<nav")]
    assert worst.message in opening
    assert note.message not in opening
    assert "1 invalidates results" in opening
    assert "1 worth knowing" in opening


def test_a_picture_never_grows_and_keeps_its_shape():
    def size(height: int, width: int) -> tuple[int, ...]:
        pixels = np.zeros((height, width), np.uint8)
        picture = draw_picture("a", pixels, np.empty((0, 4)), [], 100)
        shown = picture.height, picture.width
        assert decoded(SOURCE.findall(picture.source)[0]).shape[:2] == shown
        return shown

    assert size(400, 200) == (100, 50)
    assert size(9, 9) == (9, 9)
