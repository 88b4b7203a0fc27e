"""Reader studies with marks: published figures, where marks hit, who read what."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.lesion_hits import HitRule
from cxr_compare.evaluation.sources.import_folder import import_file
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.studies.readers.reader_analysis import analyse_readers
from cxr_compare.studies.readers.reader_files import read_lesions, read_reading_table
from cxr_compare.studies.readers.readers import readers as command
from cxr_compare.studies.readers.reading_form import import_form
from cxr_compare.studies.readers.readings import join_marks


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def published(shared_data, tmp_path):
    """Analyse one of the studies that RJafroc distributes, from its files."""

    def run(name, **options):
        folder = shared_data / "reader_study_froc" / name
        if not folder.is_dir():
            pytest.skip(f"no {folder}")
        asked = {"truth": folder / "cases.csv", "lesions": folder / "lesions.csv"}
        command([folder / "marks.csv"], out=tmp_path / name, **asked, **options)
        table = pd.read_csv(tmp_path / name / "readers.csv")
        return table, json.loads((tmp_path / name / "readers.json").read_text())

    return run


def figures(table, metric, modality):
    rows = table[(table["kind"] == "reader") & (table["metric"] == metric)]
    return rows[rows["first"].astype(str) == modality]["estimate"].to_numpy()


def mean_squares(table, metric, modalities):
    """Of modalities, readers and both, from the figures: Obuchowski and Rockette 1995."""
    each = np.array([figures(table, metric, modality) for modality in modalities])
    t, r = each.shape
    of_t = r * each.mean(axis=1).var(ddof=1)
    of_r = t * each.mean(axis=0).var(ddof=1)
    rest = each - each.mean(axis=0) - each.mean(axis=1, keepdims=True) + each.mean()
    return of_t, of_r, (rest**2).sum() / ((t - 1) * (r - 1))


def test_the_tomosynthesis_study_comes_out_as_published(published):
    """RJafroc 3.6.1, dataset01, FOM wAFROC, Obuchowski-Rockette by jackknife, RRRC."""
    table, stored = published("tomosynthesis")
    bt = [0.76027037, 0.84061915, 0.81715239, 0.81530899, 0.82783240]
    dm = [0.64258544, 0.70499766, 0.75184340, 0.77244265, 0.68369616]
    assert figures(table, "wafroc", "BT").round(8).tolist() == bt
    assert figures(table, "wafroc", "DM").round(8).tolist() == dm
    squares = mean_squares(table, "wafroc", ["BT", "DM"])
    assert [round(each, 6) for each in squares] == [0.025565, 0.002673, 0.000999]
    parts = {name: round(v, 6) for name, v in stored["crossed"]["wafroc"]["components"].items()}
    assert parts == {
        "reader": 0.000813,
        "interaction": 0.000487,
        "cov1": 0.000299,
        "cov2": 0.000572,
        "cov3": 0.000275,
        "error": 0.001108,
    }
    test = stored["crossed"]["wafroc"]["overall"]
    assert (round(test["statistic"], 6), test["freedom"][0]) == (10.298825, 1)
    assert (round(test["freedom"][1], 6), round(test["p_value"], 6)) == (24.702758, 0.003669)
    names = ["estimate", "std_error", "df", "ci_low", "ci_high"]
    of = table[table["metric"] == "wafroc"].set_index(["kind", "first"])[names].round(6)
    gap = of.loc["difference"].loc["BT"].drop("df")
    assert gap.tolist() == [0.101124, 0.031511, 0.036186, 0.166061]
    means = of.loc["mean"].T
    assert means["BT"].tolist() == [0.812237, 0.026984, 59.281486, 0.758246, 0.866227]
    assert means["DM"].tolist() == [0.711113, 0.033910, 17.789298, 0.639810, 0.782416]
    assert stored["primary"] == "wafroc"
    assert stored["answer"].startswith("Readers' weighted AFROC was higher for “BT” (0.812) than")


def test_the_reserved_study_gives_the_published_figures(published):
    """RJafroc 3.6.1, dataset05: nine readers, wAFROC by reader, mean squares of both figures."""
    table, _ = published("two_modalities_nine_readers")
    first = [
        0.72446809,
        0.88096927,
        0.80957447,
        0.61331757,
        0.57730496,
        0.84933018,
        0.89278960,
        0.80260047,
        0.76398739,
    ]
    second = [
        0.80236407,
        0.96855792,
        0.84598109,
        0.75141844,
        0.72092199,
        0.87186761,
        0.93695823,
        0.89948779,
        0.81903073,
    ]
    assert figures(table, "wafroc", "1").round(8).tolist() == first
    assert figures(table, "wafroc", "2").round(8).tolist() == second
    squares = [round(each, 8) for each in mean_squares(table, "wafroc", ["1", "2"])]
    assert squares == [0.02739718, 0.01833741, 0.00092775]
    squares = [round(each, 8) for each in mean_squares(table, "afroc", ["1", "2"])]
    assert squares == [0.02085002, 0.01840233, 0.00085456]


MARKS = {  # lesions 10,10,20,20 and 40,10,50,20 on a; none on n and m
    "in the first lesion": ("a", (12, 12, 18, 18)),
    "beside both": ("a", (24, 10, 34, 20)),
    "a point in the second": ("a", (45, 15, 45, 15)),
}


def study(marks, hit="centre", positive_from=None):
    """Two readers who say the same of cases a and b (positive), n and m (negative)."""
    corners = [("a", "1", 10, 10, 20, 20), ("a", "2", 40, 10, 50, 20), ("b", "1", 0, 0, 10, 10)]
    lesions = pd.DataFrame(corners, columns=["case", "lesion", *EDGES])
    truth = pd.DataFrame({"label": [True, True, False, False]}, index=list("abnm"))
    truth = truth.assign(patient=truth.index).rename_axis("case")
    rows = [(case, *place, rating) for case, place, rating in marks]
    table = pd.DataFrame(rows, columns=["case", *EDGES, "rating"]).assign(modality="m")
    readings = [table.assign(reader=reader) for reader in "RS"]
    rule, _, limit = hit.partition(" ")
    joined = join_marks(truth, readings, {}, lesions, all_read=True, positive_from=positive_from)
    return replace(joined, hit=HitRule(rule, float(limit or 0)))


@pytest.mark.parametrize(
    ("mark", "hit", "found", "false"),
    [
        ("in the first lesion", "centre", 1 / 3, 0),
        ("in the first lesion", "iou 0.36", 1 / 3, 0),  # 36 of 100 px
        ("in the first lesion", "iou 0.37", 0, 1 / 4),
        ("beside both", "centre", 0, 1 / 4),
        ("beside both", "distance 14", 1 / 3, 0),  # its centre is 14 px from the first's
        ("beside both", "distance 13.9", 0, 1 / 4),
        ("beside both", "distance 16", 2 / 3, 0),  # and 16 from the second's: both
        ("a point in the second", "centre", 1 / 3, 0),
        ("a point in the second", "iou 0.01", 0, 1 / 4),  # a point overlaps nothing
    ],
)
def test_a_mark_hits_as_declared(mark, hit, found, false):
    case, place = MARKS[mark]
    analysis = analyse_readers(study([(case, place, 3.0)], hit))
    assert analysis.rows_of("reader", "lesion_sensitivity")[0].estimate == pytest.approx(found)
    assert analysis.rows_of("reader", "false_marks")[0].estimate == pytest.approx(false)


@pytest.mark.parametrize("hit", ["centre:1", "iou:0", "iou:1.5", "distance", "distance:x", "near"])
def test_a_rule_without_its_limit_is_refused(tmp_path, hit):
    with pytest.raises(InputError, match="hit"):
        command(["marks.csv"], out=tmp_path, truth="truth.csv", hit=hit)


def test_figures_of_marks_by_hand():
    """First lesion of a at 4, b's at 2; false marks at 3 on n and at 5 on b."""
    marks = [
        ("a", (12, 12, 18, 18), 4.0),
        ("b", (2, 2, 8, 8), 2.0),
        ("n", (0, 0, 4, 4), 3.0),
        ("b", (30, 30, 40, 40), 5.0),
    ]
    one = {
        row.metric: row.estimate
        for row in analyse_readers(study(marks)).rows
        if row.kind == "reader" and row.reader == "R"
    }
    # psi of lesions a1, a2, b1 against n (3) and m (no mark): 1 and 1, 0 and 1/2, 0 and 1.
    assert one["wafroc"] == pytest.approx((0.5 * 1 + 0.5 * 0.25 + 0.5) / 2)
    assert one["afroc"] == pytest.approx((1 + 0.25 + 0.5) / 3)
    # From 4 on one false mark of four images (5), so one lesion; from 2 on two, one half: both.
    assert one["froc"] == pytest.approx(2 / 3)
    assert (one["lesion_sensitivity"], one["false_marks"]) == (pytest.approx(2 / 3), 0.5)
    assert one["auroc"] == 1.0  # highest: a 4, b 5 against n 3 and m none


def test_marks_below_the_declared_rating_do_not_count_as_called():
    marks = [("a", (12, 12, 18, 18), 4.0), ("b", (2, 2, 8, 8), 2.0), ("n", (0, 0, 4, 4), 3.0)]
    result = analyse_readers(study(marks, positive_from=3.0))
    one = {row.metric: row.estimate for row in result.rows if row.reader == "R"}
    assert (one["lesion_sensitivity"], one["false_marks"]) == (pytest.approx(1 / 3), 0.25)
    assert (one["recall"], one["specificity"]) == (0.5, 0.5)
    assert one["wafroc"] == analyse_readers(study(marks)).rows_of("reader", "wafroc")[0].estimate


MARK_FILE = """reader,modality,image_id,x,y,rating
R,A,a,15,15,4
R,A,b,,,
R,A,n,,,
R,A,m,,,1
"""


def test_rows_without_a_place_say_what_was_read(tmp_path):
    table = read_reading_table(write(tmp_path / "marks.csv", MARK_FILE))
    assert table["x1"].tolist()[0] == table["x2"].tolist()[0] == 15
    corners = [("a", "1", 10, 10, 20, 20), ("b", "1", 0, 0, 10, 10)]
    lesions = pd.DataFrame(corners, columns=["case", "lesion", *EDGES])
    cases = list("abnmx")
    truth = pd.DataFrame({"label": [True, True, False, False, False], "patient": cases}, cases)
    found = join_marks(truth.rename_axis("case"), [table], {}, lesions, all_read=False)
    rated = found.readings.set_index("case")["rating"]
    assert sorted(rated.index) == ["a", "b", "m", "n"]  # x was read by nobody
    assert rated["a"] > rated["m"] > rated["b"] == rated["n"]  # m was rated as a whole
    only = table[table["x1"].notna()]
    with pytest.raises(InputError, match="reader R, modality A"):
        join_marks(truth.rename_axis("case"), [only], {}, lesions, all_read=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reader,case,x,rating\nR,a,1,2\n", "marks need x and y, or x1, y1, x2 and y2, or lesion"),
        ("reader,case,x,y\nR,a,1,2\n", "column 'rating' or 'decision' is missing"),
        ("reader,case,x,y,rating\nR,a,1,,2\n", "line 2: .*rating.*x, y"),
        ("reader,case,x,y,rating\nR,a,1,2,\n", "line 2: .*rating.*x, y"),
        ("reader,case,x1,y1,x2,y2,rating\nR,a,9,1,2,3,1\n", "the first edge before the second"),
        ("reader,case,x,y,rating\nR,a,1,left,2\n", "line 2: y 'left'"),
    ],
)
def test_damaged_marks_are_refused_with_their_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_reading_table(write(tmp_path / "marks.csv", text))


def test_damaged_lesions_are_refused(tmp_path):
    path = tmp_path / "lesions.csv"
    with pytest.raises(InputError, match=r"case a .*0\.7"):
        read_lesions(write(path, "case,lesion,weight\na,1,0.5\na,2,0.2\n"))
    with pytest.raises(InputError, match="line 3: case a, lesion 1"):
        read_lesions(write(path, "case,lesion\na,1\na,1\n"))
    table = read_lesions(write(path, "case\na\na\nb\n"))
    assert table["lesion"].tolist() == ["1", "2", "1"]


LESIONS = "case,lesion\na,1\nb,1\n"


@pytest.mark.parametrize(
    ("truth", "lesions", "marks", "message"),
    [
        ("a,1\nb,1\nn,0\nm,0", "case,lesion\na,1\n", "a,1,2", "case 'b' is positive, but has no"),
        ("a,1\nb,1\nn,0\nm,0", LESIONS + "n,1\n", "a,1,2", "case 'n' has a lesion, but the truth"),
        ("a,1\nb,1\nn,0\nm,0", LESIONS, "a,7,2", "a mark hit lesion '7', which is not among"),
        ("a,1\nb,1\nn,0\nm,0", LESIONS, "q,,2", "case 'q' was read but has no truth"),
    ],
)
def test_lesions_truth_and_marks_must_fit(tmp_path, truth, lesions, marks, message):
    paths = {"truth": f"case,label\n{truth}\n", "lesions": lesions}
    paths = {name: write(tmp_path / f"{name}.csv", text) for name, text in paths.items()}
    file = write(tmp_path / "marks.csv", f"reader,case,lesion,rating\nR,{marks}\nS,a,1,2\n")
    with pytest.raises(InputError, match=message):
        command([file], out=tmp_path / "out", **paths)


def test_marks_without_lesions_are_refused(tmp_path):
    truth = write(tmp_path / "truth.csv", "case,label\na,1\nn,0\n")
    file = write(tmp_path / "marks.csv", "reader,case,x,y,rating\nR,a,1,1,2\n")
    with pytest.raises(InputError, match="marks need lesions="):
        command([file], out=tmp_path / "out", truth=truth)


def test_readings_without_marks_and_a_system_with_marks_do_not_fit(tmp_path):
    truth = write(tmp_path / "truth.csv", "case,label\na,1\nb,1\nn,0\nm,0\n")
    rated = "".join(f"{reader},{case},0.5\n" for reader in "RS" for case in "abnm")
    file = write(tmp_path / "ratings.csv", f"reader,case,rating\n{rated}")
    marks = "case,x,y,rating\n" + "".join(f"{case},1,1,2\n{case},3,3,1\n" for case in "abnm")
    system = {"AI": write(tmp_path / "ai.csv", marks)}
    with pytest.raises(InputError, match="the files differ"):
        command([file], out=tmp_path / "out", truth=truth, system=system)


def test_marks_that_name_lesions_need_those_names(evaluation_set, tmp_path):
    ids = evaluation_set.image_ids("test", "default")
    rows = "".join(f"{reader},{name},,1\n" for reader in "RS" for name in ids)
    file = write(tmp_path / "marks.csv", f"reader,image_id,lesion,rating\n{rows}")
    with pytest.raises(InputError, match="lesions="):
        command([file], out=tmp_path / "out", data=evaluation_set.folder)


@pytest.fixture
def marked_by(evaluation_set, tmp_path):
    """Marks of a reader on the test images: lesions found by skill, and false marks."""
    ids = evaluation_set.image_ids("test", "default")
    boxes = evaluation_set.boxes.drop_duplicates("image_id").set_index("image_id").reindex(ids)

    def rows(reader, seed):
        rng = np.random.default_rng(seed)
        found = boxes["x1"].notna() & (rng.random(len(ids)) < 0.8)
        places = boxes[EDGES] + rng.normal(0, 2, (len(ids), 4))
        marks = places[found].assign(rating=rng.integers(5, 11, found.sum()) / 10)
        wrong = pd.Index(ids)[rng.random(len(ids)) < 0.3]
        false = pd.DataFrame(
            {
                "x1": 1.0,
                "y1": 1.0,
                "x2": 6.0,
                "y2": 6.0,
                "rating": rng.integers(1, 8, len(wrong)) / 10,
            },
            index=wrong,
        )
        marks = pd.concat([marks, false]).rename_axis("image_id").reset_index()
        return marks.assign(reader=reader)

    return ids, rows


def test_a_detector_is_evaluated_at_its_boxes(evaluation_set, predict, marked_by, tmp_path):
    detector = predict("AI", "boxes", skill=4.0)
    ids, rows = marked_by
    read = pd.DataFrame({"image_id": ids})
    tables = [
        pd.concat([rows(name, seed), read.assign(reader=name)])
        for seed, name in enumerate(("Ann", "Bo", "Cy"))
    ]
    path = tmp_path / "marks.csv"
    pd.concat(tables).to_csv(path, index=False)
    out = tmp_path / "out"
    asked = {"data": evaluation_set.folder, "hit": "iou"}
    stored = command([path], out=out, system={"AI": detector}, **asked).to_dict()
    assert stored["primary"] == "wafroc"
    of = {(row["metric"], row["kind"]): row["estimate"] for row in stored["figures"]}
    from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
    from tests.compared import compare_predictions

    test_set = LabelledSplit(evaluation_set, evaluation_set.target())
    evaluated = compare_predictions({"AI": detector}, test_set, replicates=20).metrics
    evaluated = evaluated[(evaluated["subgroup"] == "all") & (evaluated["metric"] == "wafroc")]
    assert of["wafroc", "system"] == pytest.approx(evaluated["estimate"].iloc[0])
    called = [row for row in stored["figures"] if row["metric"] == "false_marks"]
    assert all(row["ci_high"] is None or row["ci_high"] > row["ci_low"] for row in called)
    # At its threshold it marks less than it has boxes.
    assert 0 < of["false_marks", "system"] < len(detector.boxes) / len(ids)
    classifier = predict("C", "scores")
    with pytest.raises(InputError, match="gives no boxes, as readers gave marks"):
        command([path], out=tmp_path / "no", system={"C": classifier}, **asked)


def test_readers_come_as_coco_results_or_as_imported_predictions(
    evaluation_set, marked_by, tmp_path
):
    ids, rows = marked_by
    named = []
    imported = []
    for seed, reader in enumerate(("Ann", "Bo")):
        marks = rows(reader, seed)
        entries = [
            {
                "image_id": row.image_id,
                "category_id": 1,
                "score": row.rating,
                "bbox": [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1],
            }
            for row in marks.itertuples()
        ]
        path = write(tmp_path / f"{reader}.json", json.dumps(entries))
        named.append(f"{reader}={path}")
        images = write(tmp_path / "images.txt", "\n".join(ids))
        made = tmp_path / f"{reader}-predictions"
        import_file(path, evaluation_set, made, ImportOptions(reader, images=images))
        imported.append(f"{reader}:unaided={made}")
    truth = evaluation_set.labels(evaluation_set.target()).reindex(ids).astype(int).rename("label")
    truth = truth.rename_axis("case").reset_index()
    truth["patient"] = evaluation_set.images.set_index("image_id")["patient_id"].loc[ids].to_numpy()
    truth.to_csv(tmp_path / "truth.csv", index=False)
    boxes = evaluation_set.boxes.rename(columns={"image_id": "case"})
    boxes[["case", *EDGES]].to_csv(tmp_path / "lesions.csv", index=False)
    paths = {"truth": tmp_path / "truth.csv", "lesions": tmp_path / "lesions.csv"}
    by_files = command(named, out=tmp_path / "coco", **paths).to_dict()
    by_data = command(
        imported, out=tmp_path / "imported", data=evaluation_set.folder, rename="unaided=plain"
    ).to_dict()
    areas = [
        [row["estimate"] for row in stored["figures"] if row["kind"] == "reader"]
        for stored in (by_files, by_data)
    ]
    assert areas[0] == pytest.approx(areas[1])
    assert {row["first"] for row in by_data["figures"]} == {"plain"}
    with pytest.raises(InputError, match="reader Ann"):
        command(named, out=tmp_path / "unknown", data=evaluation_set.folder)


def test_a_modality_that_nobody_read_with_is_not_renamed(tmp_path):
    truth = write(tmp_path / "truth.csv", "case,label\na,1\nn,0\n")
    file = write(tmp_path / "r.csv", "reader,modality,case,rating\nR,0,a,1\nR,0,n,2\n")
    with pytest.raises(InputError, match=r'rename="1=with": .*0'):
        command([file], out=tmp_path / "out", truth=truth, rename="1=with")


def test_answers_of_the_reading_page_come_back_as_marks_and_as_a_system(
    evaluation_set, marked_by, tmp_path
):
    """The key has half-size panels, so boxes come back twice as large."""
    ids, rows = marked_by
    numbers = {name: f"{place:03d}" for place, name in enumerate(ids, start=1)}
    keys = [f"{number},{name},0.5" for name, number in numbers.items()]
    key = write(tmp_path / "key.csv", "\n".join(["number,image_id,scale", *keys]) + "\n")
    forms = []
    for seed, reader in enumerate(("Ann", "Bo")):
        marks = rows(reader, seed)
        lines = ["number,score,x1,y1,x2,y2,remark"]
        for name, number in numbers.items():
            own = marks[marks["image_id"] == name]
            lines.append(f"{number},{own['rating'].max() if len(own) else 0},,,,,")
            places = own[EDGES].clip(0) / 2
            for rating, corners in zip(own["rating"], places.to_numpy(), strict=True):
                lines.append(",".join([number, str(rating), *map(str, corners), ""]))
        path = write(tmp_path / f"{reader}.csv", "\n".join(lines) + "\n")
        forms.append(f"{reader}={path}")
    stored = command(forms, out=tmp_path / "out", data=evaluation_set.folder, key=key).to_dict()
    assert (stored["primary"], stored["n_cases"]) == ("wafroc", len(ids))
    marks = rows("Ann", 0)
    one = [
        row["estimate"]
        for row in stored["figures"]
        if (row["metric"], row["reader"]) == ("false_marks", "Ann")
    ]
    hits = marks["x1"] > 5  # a false mark begins at 1
    assert one[0] == pytest.approx((~hits).sum() / len(ids), abs=2 / len(ids))
    path = forms[0].split("=")[1]
    reader = import_form(
        path, key=key, data=evaluation_set.folder, out=tmp_path / "system", name="Ann"
    )
    assert len(reader.boxes) == len(marks)
    assert set(reader.images_run) == set(ids)
    np.testing.assert_allclose(
        reader.boxes["x1"].sort_values(), marks["x1"].clip(0).sort_values(), atol=1e-6
    )


def test_the_page_says_what_a_hit_is_and_draws_each_reader(published, tmp_path):
    table, _ = published("tomosynthesis", rename="BT=tomosynthesis,DM=mammography")
    html = (tmp_path / "tomosynthesis" / "readers.html").read_text()
    for text in (
        "Which lesion a mark hit is what the file of marks says",
        "Reader 5",
        "Weighted AFROC curve of each reader",
        "False positives per image",
        "FROC: lesion sensitivity at 0.5 false positives per image",
    ):
        assert text in html
    assert set(table["first"]) == {"tomosynthesis", "mammography"}
