"""Reader studies, the rules of other programs, and sizes of studies: kept figures and refusals."""

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
from cxr_compare import DataSet, InputError, metrics
from tests.adapters.sets import prepare_tables, table_set, write_predictions, write_source
from tests.adapters.studies import (
    EDGES,
    Assumptions,
    auroc_parts,
    box_iou,
    nearest,
    protocol_figures,
)
from tests.oracles.boxes import rsna

KEPT = Path(__file__).parent / "kept" / "studies"
VALUES = json.loads((KEPT / "plans_and_rules.json").read_text())


def draw_study(folder, seed, readers, modalities, *, per=1, keep=None, ratings=True, systems=0):
    """Ratings and decisions of 60 patients with `per` images each, and systems beside them."""
    rng = np.random.default_rng(seed)
    case = [f"c{patient}_{image}" for patient in range(60) for image in range(per)]
    label = np.repeat(rng.random(60) < 0.4, per)
    truth = {"case": case, "label": label.astype(int)}
    truth["patient"] = [f"p{patient}" for patient in range(60) for _ in range(per)]
    pd.DataFrame(truth).to_csv(folder / "truth.csv", index=False)
    of_patient = 0.5 * np.repeat(rng.normal(size=60), per)
    tables = []
    for reader in range(readers):
        skill = 1.0 + 0.3 * rng.normal()
        for modality in range(modalities):
            sure = (skill + 0.3 * modality) * label + of_patient + rng.normal(size=len(case))
            table = pd.DataFrame({"reader": f"R{reader}", "modality": f"m{modality}", "case": case})
            if ratings:
                table["rating"] = np.round(sure * 2) / 2
            table["decision"] = (sure > 0.5).astype(int)
            tables.append(keep(table, reader, modality, rng) if keep else table)
    pd.concat([table for table in tables if len(table)]).to_csv(folder / "ratings.csv", index=False)
    for number in range(systems):
        sure = 1.5 * label + of_patient + rng.normal(size=len(case))
        table = pd.DataFrame({"case": case, "score": sure})
        if not ratings or number == 0:
            table["decision"] = (sure > 0.6).astype(int)
        table.to_csv(folder / f"system{number}.csv", index=False)


def _without(reader, modality):
    return lambda table, r, m, rng: table[:0] if (r, m) == (reader, modality) else table


DESIGNS = {
    "crossed4x2": {"seed": 1, "readers": 4, "modalities": 2},
    "five_readers_two_systems": {"seed": 5, "readers": 5, "modalities": 2, "systems": 2},
    "clusters": {"seed": 6, "readers": 4, "modalities": 2, "per": 3, "systems": 1},
    "nested": {
        "seed": 7,
        "readers": 6,
        "modalities": 2,
        "keep": lambda table, r, m, rng: table if (r < 3) == (m == 0) else table[:0],
    },
    "partly": {"seed": 8, "readers": 5, "modalities": 2, "keep": _without(4, 1)},
    "three_partly": {"seed": 9, "readers": 5, "modalities": 3, "keep": _without(4, 2)},
    "missing_cases": {
        "seed": 10,
        "readers": 4,
        "modalities": 2,
        "keep": lambda table, r, m, rng: table[rng.random(len(table)) < 0.9],
    },
    "decisions_only": {"seed": 11, "readers": 4, "modalities": 2, "ratings": False, "systems": 1},
}


def analyse(folder, **options):
    """Run `cxr readers` on the files of a folder."""
    systems = [f"{path.stem}={path}" for path in sorted(folder.glob("system*.csv"))]
    return cxr_compare.readers(
        [folder / "ratings.csv"],
        truth=folder / "truth.csv",
        system=systems,
        out=folder / "out",
        **options,
    )


@pytest.mark.parametrize("name", DESIGNS)
def test_a_reader_study_has_the_figures_of_the_former_program(name, tmp_path):
    draw_study(tmp_path, **DESIGNS[name])
    outcome = analyse(tmp_path)
    key = ["kind", "metric", "first", "second", "reader"]
    tables = []
    for path in (tmp_path / "out" / "readers.csv", KEPT / f"{name}.csv"):
        table = pd.read_csv(path)
        table[key] = table[key].astype(object).fillna("")
        tables.append(table.sort_values(key, ignore_index=True))
    found, expected = tables
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=0, atol=1e-9)
    stored = json.loads((tmp_path / "out" / "readers.json").read_text())
    assert str(outcome).splitlines()[0] == stored["answer"]
    assert (tmp_path / "out" / "readers.html").is_file()


def test_van_dykes_study_has_its_published_figures(shared_data, tmp_path):
    folder = shared_data / "reader_study_vandyke"
    out = tmp_path / "out"
    options = {"truth": folder / "truth.csv", "out": out}
    cxr_compare.readers([folder / "ratings.csv"], **options)
    table = pd.read_csv(out / "readers.csv")
    mean = table[(table["kind"] == "mean") & (table["metric"] == "auroc")]["estimate"]
    assert sorted(mean) == pytest.approx([0.89703704, 0.94083736], abs=1e-8)
    row = table[(table["kind"] == "difference") & (table["metric"] == "auroc")].iloc[0]
    assert abs(row["estimate"]) == pytest.approx(0.04380, abs=1e-5)
    assert row["std_error"] == pytest.approx(0.02075, abs=1e-5)
    assert row["df"] == pytest.approx(15.26, abs=5e-3)
    ends = sorted(abs(row[["ci_low", "ci_high"]].astype(float)))
    assert ends == pytest.approx([0.00036, 0.08796], abs=1e-5)
    cxr_compare.readers([folder / "ratings.csv"], **options, readers="fixed")
    row = pd.read_csv(out / "readers.csv").query("kind == 'difference' and metric == 'auroc'")
    ends = sorted(abs(row[["ci_low", "ci_high"]].to_numpy().ravel()))
    assert ends == pytest.approx([0.00711, 0.08049], abs=1e-5)
    test = json.loads((out / "readers.json").read_text())["overall"]["auroc"]
    assert (round(test["statistic"], 5), test["freedom"]) == (5.47595, [1])


RATINGS = "reader,modality,case,rating\n"
BAD_RATINGS = {
    "a column is missing": ("reader,case\nR,c0_0\n", ["rating"]),
    "an empty cell": (RATINGS + "R,m,,1\n", ["line 2", "case"]),
    "a rating that is no number": (RATINGS + "R,m,c0_0,high\n", ["line 2", "rating"]),
    "a decision that is neither": ("reader,case,decision\nR,c0_0,2\n", ["line 2", "2"]),
    "a reading twice": (RATINGS + "R,m,c0_0,1\nR,m,c0_0,2\n", ["line 3", "case"]),
    "a case without truth": (RATINGS + "R,m,c99,1\n", ["c99"]),
    "marks": ("reader,case,rating,x1,y1\nR,c0_0,1,2,3\n", ["x1"]),
    "one class alone": (RATINGS + "R,m,c0_0,1\n", ["R"]),
    "no modality in a line": (RATINGS + "R,,c0_0,1\n", ["line 2", "modality"]),
    "no result in a column": (RATINGS + "R,m,c0_0,\n", ["ratings.csv"]),
    "a rating without its decision": (
        "reader,case,rating,decision\nR,c0_0,1,\n",
        ["line 2", "decision"],
    ),
}


@pytest.mark.parametrize("name", BAD_RATINGS)
def test_damaged_ratings_are_refused_in_one_line(name, tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    text, parts = BAD_RATINGS[name]
    (tmp_path / "ratings.csv").write_text(text)
    with pytest.raises(InputError) as error:
        analyse(tmp_path)
    line = str(error.value)
    assert "\n" not in line
    assert [part for part in parts if part not in line] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "text", "parts"),
    [
        ("truth.csv", "case,label\nc0_0,1\nc1_0,2\n", ["3", "c1_0", "label", "2"]),
        ("truth.csv", "case,label\nc0_0,1\nc0_0,1\n", ["line 3", "case"]),
        ("truth.csv", "case,label,patient\nc0_0,1,\n", ["line 2", "patient"]),
        ("m0.csv", "case,score\nc0_0,1\n", ["m0"]),
        ("system.csv", "case,score\nc0_0,1\n", ["system", "c10_0"]),
        ("system.csv", "case,decision\n" + "".join(f"c{k}_0,1\n" for k in range(60)), ["rating"]),
    ],
)
def test_files_that_do_not_fit_a_study_are_refused(file, text, parts, tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    (tmp_path / file).write_text(text)
    system = {} if file == "truth.csv" else {"system": [f"{file[:-4]}={tmp_path / file}"]}
    options = {"truth": tmp_path / "truth.csv", "out": tmp_path / "out"}
    with pytest.raises(InputError) as error:
        cxr_compare.readers([tmp_path / "ratings.csv"], **options, **system)
    assert [part for part in parts if part not in str(error.value)] == []
    assert "\n" not in str(error.value)


def test_a_reading_in_two_files_and_files_with_other_columns_are_refused(tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    paths = [tmp_path / "ratings.csv", tmp_path / "again.csv"]
    options = {"truth": tmp_path / "truth.csv", "out": tmp_path / "out"}
    table = pd.read_csv(paths[0])
    for again, part in ((table[:1], "two files"), (table.drop(columns="rating"), "columns")):
        again.to_csv(paths[1], index=False)
        with pytest.raises(InputError, match=part):
            cxr_compare.readers(paths, **options)


def test_a_folder_with_other_files_is_refused(tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").touch()
    with pytest.raises(InputError, match=r"report\.html"):
        analyse(tmp_path)


@pytest.mark.parametrize("name", ["ratings.xlsx", "semicolons.csv"])
def test_ratings_of_a_spreadsheet_and_with_decimal_commas_are_read(name, tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    analyse(tmp_path)
    table = pd.read_csv(tmp_path / "ratings.csv")
    if name.endswith("xlsx"):
        table.to_excel(tmp_path / name, index=False)
    else:
        table.to_csv(tmp_path / name, index=False, sep=";", decimal=",")
    cxr_compare.readers(
        [tmp_path / name], truth=tmp_path / "truth.csv", out=tmp_path / "other", system=()
    )
    contents = [(tmp_path / folder / "readers.csv").read_text() for folder in ("out", "other")]
    assert contents[0] == contents[1]


def test_one_reader_does_not_stand_for_others(tmp_path):
    draw_study(tmp_path, 1, 1, 2)
    with pytest.raises(InputError):
        analyse(tmp_path)
    analyse(tmp_path, readers="fixed")


def claims(folder, **options):
    """Analyse a study; its differences of the first metric, and what is claimed, in their order."""
    analyse(folder, **options)
    table = pd.read_csv(folder / "out" / "readers.csv")
    rows = table[(table["kind"] == "difference") & (table["metric"] == table["metric"].iloc[0])]
    stored = json.loads((folder / "out" / "readers.json").read_text())
    return rows, [found["shown"] for found in stored["findings"]], stored


@pytest.mark.parametrize("seed", range(4))
def test_a_difference_is_claimed_if_its_interval_for_all_comparisons_excludes_0(seed, tmp_path):
    draw_study(tmp_path, seed, 5, 2, systems=2)
    rows, shown, stored = claims(tmp_path)
    assert len(rows) == 5  # a pair of modalities, and each with each system
    excludes = (rows["ci_low_all"] > 0) | (rows["ci_high_all"] < 0)
    assert shown == excludes.tolist() == (rows["p_value_all"] < 0.05).tolist()
    assert (rows["p_value_all"] >= np.minimum(1, 5 * rows["p_value"]) * (1 - 1e-9)).all()
    system = [row for row in stored["figures"] if row["kind"] == "system"]
    assert {row["freedom_between"] for row in system} == {None}


@pytest.mark.parametrize(("n_readers", "cautious"), [(4, True), (6, False)])
def test_few_degrees_of_freedom_between_readers_make_a_claim_cautious(
    n_readers, cautious, tmp_path
):
    draw_study(tmp_path, 2, n_readers, 2)
    rows, *_ = claims(tmp_path)
    assert rows["freedom_between"].tolist() == [n_readers - 1]
    assert rows["cautious"].tolist() == [cautious]
    assert (rows["p_value_all"] > rows["p_value"] * 1.001).tolist() == [cautious]


def test_an_overall_test_of_few_readers_is_claimed_only_with_a_pair_of_modalities(tmp_path):
    draw_study(tmp_path, 6, 2, 3)
    rows, shown, stored = claims(tmp_path)
    assert stored["overall"]["auroc"]["p_value"] < 0.05
    assert shown == [False] * 4
    assert claims(tmp_path, readers="fixed")[1][0]
    # Two readers who agree, and a system that is never wrong: it is shown to be better than they
    # are, which says nothing of the modalities.
    draw_study(tmp_path, 10, 2, 3)
    table = pd.read_csv(tmp_path / "ratings.csv")
    one = table[table["reader"] == "R0"]
    pd.concat([one, one.assign(reader="R1")]).to_csv(tmp_path / "ratings.csv", index=False)
    truth = pd.read_csv(tmp_path / "truth.csv")
    truth.rename(columns={"label": "score"}).to_csv(tmp_path / "system.csv", index=False)
    rows, shown, stored = claims(tmp_path)
    assert stored["overall"]["auroc"]["p_value"] < 0.05
    against = rows["second"] == "system"
    assert any(np.array(shown[1:])[against])
    assert not any(np.array(shown[1:])[~against])
    assert not shown[0]


def test_readers_who_lack_a_modality_leave_no_overall_test(tmp_path):
    draw_study(tmp_path, **DESIGNS["three_partly"])
    rows, shown, stored = claims(tmp_path)
    assert (len(shown), stored["overall"]) == (len(rows), {})


def test_a_modality_of_one_reader_is_not_said_to_hold_for_others(tmp_path):
    keep = {"keep": lambda table, r, m, rng: table if (m == 0) == (r < 4) else table[:0]}
    draw_study(tmp_path, 3, 5, 2, **keep)
    texts = []
    for readers in ("random", "fixed"):
        stored = claims(tmp_path, readers=readers)[2]
        texts.append(stored["answer"].rpartition(", for ")[2])
    assert "m1" in texts[0]  # the modality that R4 alone used
    assert texts[1] != texts[0]
    assert "like these" not in texts[1].partition(" and ")[0]


def test_each_metric_is_named_beside_its_figures(tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    analyse(tmp_path)
    html = (tmp_path / "out" / "readers.html").read_text()
    cells = [f">{name}<" for name in ("AUROC", "Specificity", "Balanced accuracy")]
    assert [cell for cell in cells if cell not in html] == []


@pytest.fixture
def read_set(tmp_path):
    """A data set with readings of its test images, and a system's predictions by its split."""
    ids = [f"i{number:03d}" for number in range(80)]
    positive = np.arange(80) % 4 < 2
    roles = np.array(["val", "test"] * 40)
    states = {"opacity": np.where(positive, "present", "absent")}
    data = table_set(tmp_path, ids, states, split=roles.tolist())
    swapped = np.where(roles == "val", "test", "val")
    table = pd.DataFrame({"image_id": ids, "role": swapped})
    table.to_csv(tmp_path / "split.csv", index=False)
    cxr_compare.split(data, name="swapped", file=tmp_path / "split.csv")
    rng = np.random.default_rng(0)
    test = np.flatnonzero(roles == "test")
    readings = [
        {"reader": r, "case": ids[k], "rating": rng.normal(positive[k])}
        for r in "ABC"
        for k in test
    ]
    pd.DataFrame(readings).assign(decision=lambda t: (t["rating"] > 0.5).astype(int)).to_csv(
        tmp_path / "ratings.csv", index=False
    )

    def predictions(split):
        # On validation images any threshold above 0.2 is best; a quarter of test images is missed.
        score = np.where(positive, 0.8, 0.2)
        score[(roles == "test") & (np.arange(80) % 8 == 1)] = 0.1
        rows = pd.DataFrame({"image_id": ids, "finding": "opacity", "score": score})
        return write_predictions(tmp_path / split, data, ids, "AI", split=split, scores=rows)

    return data, predictions


def test_a_system_decides_by_the_threshold_of_its_validation_images(read_set, tmp_path):
    data, predictions = read_set
    out = tmp_path / "out"
    cxr_compare.readers(
        [tmp_path / "ratings.csv"], data=data, out=out, system={"AI": predictions("default")}
    )
    table = pd.read_csv(out / "readers.csv").query("kind == 'system'").set_index("metric")
    assert table.loc[["recall", "specificity"], "estimate"].tolist() == [0.5, 1.0]


def test_a_system_is_compared_on_the_test_images_of_its_own_split_alone(read_set, tmp_path):
    data, predictions = read_set
    options = {"data": data, "out": tmp_path / "out", "system": {"AI": predictions("swapped")}}
    with pytest.raises(InputError, match=r"AI.*i001.*swapped"):
        cxr_compare.readers([tmp_path / "ratings.csv"], **options)
    assert not (tmp_path / "out").exists()


def test_a_system_in_a_folder_without_predictions_is_refused_by_its_name(read_set, tmp_path):
    data, _ = read_set
    options = {"data": data, "out": tmp_path / "out", "system": {"AI": data}}
    with pytest.raises(InputError, match=r"data.*not predictions"):
        cxr_compare.readers([tmp_path / "ratings.csv"], **options)


def test_predictions_on_another_data_set_are_refused_though_its_images_are_called_alike(
    read_set, tmp_path
):
    data, _ = read_set
    ids = [f"i{number:03d}" for number in range(80)]
    other = table_set(tmp_path / "b", ids, {"opacity": ["present"] * 80}, patient_id=ids[::-1])
    rows = pd.DataFrame({"image_id": ids, "finding": "opacity", "score": 0.5})
    made = write_predictions(tmp_path / "p", other, ids, "AI", split="default", scores=rows)
    with pytest.raises(InputError, match="AI"):
        cxr_compare.readers(
            [tmp_path / "ratings.csv"], data=data, out=tmp_path / "out", system={"AI": made}
        )


def test_copies_of_images_within_their_patient_do_not_narrow_an_interval(tmp_path):
    draw_study(tmp_path, 1, 4, 2)
    analyse(tmp_path)
    once = pd.read_csv(tmp_path / "out" / "readers.csv")
    for name in ("truth", "ratings"):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        copy = table.assign(case=table["case"] + "copy")
        pd.concat([table, copy]).to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "out").rename(tmp_path / "once")
    analyse(tmp_path)
    twice = pd.read_csv(tmp_path / "out" / "readers.csv")
    np.testing.assert_allclose(twice["estimate"], once["estimate"])
    np.testing.assert_allclose(twice["std_error"], once["std_error"], rtol=0.02)


def test_words_are_read_as_labels_and_unknown_ones_are_never_negative(tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    analyse(tmp_path)
    truth = pd.read_csv(tmp_path / "truth.csv")
    words = truth.assign(label=truth["label"].map({1: "positive", 0: "negative"}))
    words.to_csv(tmp_path / "truth.csv", index=False)
    first = (tmp_path / "out" / "readers.csv").read_text()
    analyse(tmp_path)
    assert (tmp_path / "out" / "readers.csv").read_text() == first
    words.loc[3, "label"] = "unknown"
    words.to_csv(tmp_path / "truth.csv", index=False)
    with pytest.raises(InputError, match="c3_0"):
        analyse(tmp_path)


def test_a_study_without_patients_says_so_on_its_page(tmp_path):
    draw_study(tmp_path, 1, 6, 2)
    notes = [claims(tmp_path)[2]["notes"]]
    truth = pd.read_csv(tmp_path / "truth.csv")
    truth.drop(columns="patient").to_csv(tmp_path / "truth.csv", index=False)
    notes.append(claims(tmp_path)[2]["notes"])
    (added,) = set(notes[1]) - set(notes[0])
    assert added in (tmp_path / "out" / "readers.html").read_text()


def test_a_system_may_have_read_more_cases_than_the_readers(tmp_path):
    draw_study(tmp_path, 1, 2, 2, systems=1)
    rows = claims(tmp_path)[0]
    table = pd.read_csv(tmp_path / "system0.csv")
    more = table.assign(case=table["case"] + "more", score=-table["score"])
    pd.concat([more, table]).to_csv(tmp_path / "system0.csv", index=False)
    pd.testing.assert_frame_equal(claims(tmp_path)[0], rows)


@pytest.mark.parametrize(("column", "cell"), [("score", "high"), ("score", ""), ("decision", "2")])
def test_a_system_with_a_damaged_cell_is_refused_by_its_case(column, cell, tmp_path):
    draw_study(tmp_path, 1, 2, 2, systems=1)
    table = pd.read_csv(tmp_path / "system0.csv", dtype=str)
    table.loc[4, column] = cell
    table.to_csv(tmp_path / "system0.csv", index=False)
    with pytest.raises(InputError, match=r"system0\.csv.*c4_0"):
        analyse(tmp_path)
    assert not (tmp_path / "out").exists()


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


def test_a_figure_is_answered_by_all_rules_that_give_it_or_the_nearest(explained):
    folder, table = explained
    arguments = {"boxes": folder / "boxes.json", "truth": folder / "truth.json"}
    figure = f"{table['value'].iloc[0]:.3f}"
    near = (table["value"] - float(figure)).abs() <= 0.0005
    lines = str(cxr_compare.explain(**arguments, figure=figure)).splitlines()
    assert len(lines) == near.sum()
    reason, row = str(cxr_compare.explain(**arguments, figure="0.9999")).splitlines()
    assert "0.9999" in reason
    assert row.startswith(f"{table['value'].max():.4f}")
    (stored,) = cxr_compare.explain(**arguments, figure="0.9999").to_dict()
    assert stored["value"] == table["value"].max()


def test_a_truth_file_with_a_suffix_in_capitals_is_read(explained, tmp_path):
    folder, table = explained
    truth = Path(shutil.copy(folder / "truth.json", tmp_path / "TRUTH.JSON"))
    rows = cxr_compare.explain(folder / "boxes.json", truth=truth).to_dict()
    assert [row["value"] for row in rows] == table["value"].tolist()


@pytest.mark.parametrize("figure", ["1.2", "ap75=0.3", "0.3.1", "nan", ""])
def test_a_text_that_is_no_figure_is_refused(explained, figure):
    folder, _ = explained
    with pytest.raises(InputError, match="figure"):
        cxr_compare.explain(folder / "boxes.json", truth=folder / "truth.json", figure=figure)


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


@pytest.mark.parametrize("assumed", [Assumptions((0.85, 0.8), 0.1), Assumptions((0.9, 0.7), 0.5)])
def test_more_patients_never_have_less_power_or_a_wider_interval(assumed):
    studies = [assumed.study(patients) for patients in (4, 10, 30, 100, 1000, 10**5, 10**8)]
    powers = [study.power(0.05) for study in studies]
    widths = [study.half_width(of_difference=True) for study in studies]
    assert (np.diff(powers) >= -1e-6).all()
    assert (np.diff(widths) < 0).all()
    assert powers[-1] == pytest.approx(1)
    assert assumed.study(500).power(0.0) == pytest.approx(0.05, abs=1e-6)


def test_a_share_of_a_split_keeps_its_test_images_and_lies_in_a_larger_share(tmp_path):
    ids = [f"i{number:03d}" for number in range(120)]
    patients = [f"p{number // 2:02d}" for number in range(120)]
    roles = np.repeat(["train", "val", "test"], 40).tolist()
    states = {"opacity": ["present", "present", "absent", "absent"] * 30}
    data = table_set(tmp_path, ids, states, split=roles, patient_id=patients)
    whole = DataSet.open(data).split("default").set_index("image_id")
    owner = pd.Series(patients, index=ids)
    before = set()
    for share in (0.25, 0.5, 1.0):
        cxr_compare.split(data, name=f"part-{share}", from_="default", share=share)
        part = DataSet.open(data).split(f"part-{share}").set_index("image_id").loc[whole.index]
        used = part["role"] != "unused"
        assert (part["role"] == whole["role"])[used].all()
        assert used[whole["role"] == "test"].all()
        for role in ("train", "val"):
            of_role = part.index[part["role"] == role]
            assert owner[of_role].nunique() == round(20 * share)
            assert len(of_role) == 2 * round(20 * share)  # whole patients
        assert before <= set(part.index[used])
        before = set(part.index[used])
    for share in (0.0, 1.5):
        with pytest.raises(InputError):
            cxr_compare.split(data, name="none", from_="default", share=share)


def test_a_plan_names_its_share_of_studies_and_its_interval():
    text = str(cxr_compare.plan(auroc=[0.85, 0.8], prevalence=0.3, power=0.999, half_width=0.05))
    assert "in 99.9 % of studies" in text
    assert "95 % interval of the difference" in text


def test_an_interval_says_that_it_is_for_all_comparisons_unless_there_is_none(tmp_path):
    draw_study(tmp_path, **DESIGNS["five_readers_two_systems"])
    assert " for all 5 comparisons at once)" in str(analyse(tmp_path))
    ratings = pd.read_csv(tmp_path / "ratings.csv")
    ratings.assign(rating=3).to_csv(tmp_path / "ratings.csv", index=False)
    first = str(analyse(tmp_path)).splitlines()[0]
    assert "(no interval, because nothing varies)" in first
