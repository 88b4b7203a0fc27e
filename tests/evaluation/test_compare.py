"""A comparison on forms of the same input, its folder, boxes without scores, and refusals."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import folders, reports
from tests.adapters.commands import cxr, stopped_while_predicting
from tests.adapters.sets import prepare_tables, write_source
from tests.adapters.tables import read

EDGES = ["x1", "y1", "x2", "y2"]
KEYS = ["first", "second", "metric", "policy"]


def figures_of(result):
    """All figures but the names of what they are of."""
    rows = result.to_frame().drop(columns="target", errors="ignore")
    return rows.sort_values(KEYS, ignore_index=True)


@pytest.fixture(scope="module")
def tables(world):
    """Truth, scores, boxes and true boxes of the small world's files, as frames."""
    names = ("truth", "a", "b", "boxes", "true_boxes", "patients")
    return {name: pd.read_csv(world.tables / f"{name}.csv") for name in names}


def compared(systems, tables, **options):
    call = {"truth": tables["truth"], "boxes": tables["true_boxes"], "replicates": 100}
    return cxr_compare.compare(systems, **call | options)


def test_the_same_scores_in_any_form_are_the_same_scores(tables, world, tmp_path):
    scores = tables["a"]
    scores.to_excel(tmp_path / "a.xlsx", index=False)
    scores.to_parquet(tmp_path / "a.parquet", index=False)
    named = scores.rename(columns={"image_id": "Image Index", "score": "prob"})
    named.to_csv(tmp_path / "named.csv", index=False)
    series = scores.set_index("image_id")["score"]
    forms = {
        "a frame": scores,
        "a Series": series,
        "a Series in another order": series.sample(frac=1, random_state=1),
        "an array": scores["score"].to_numpy(),
        "a list": scores["score"].tolist(),
        "CSV": world.tables / "a.csv",
        "a text of its path": str(world.tables / "a.csv"),
        "Excel": tmp_path / "a.xlsx",
        "Parquet": tmp_path / "a.parquet",
        "other names": tmp_path / "named.csv",
    }
    found = read(tables["truth"], forms, boxes=tables["true_boxes"])["systems"]
    assert found.keys() == forms.keys()
    for name in forms:
        assert found[name]["scores"] == series.to_dict(), name


def test_the_same_boxes_in_any_form_are_the_same_boxes(tables, world, tmp_path):
    boxes = tables["boxes"]
    coco = json.loads((world.tables / "coco.json").read_text())
    numbers = {image["file_name"].removesuffix(".png"): image["id"] for image in coco["images"]}
    results = [
        {
            "image_id": numbers[row.image_id],
            "category_id": 1,
            "bbox": [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1],
            "score": row.score,
        }
        for row in boxes.itertuples()
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    by_image = dict(tuple(boxes.groupby("image_id")))
    outputs = [
        {"boxes": rows[EDGES].to_numpy(float), "scores": rows["score"].to_numpy()}
        for rows in (by_image.get(name, boxes[:0]) for name in tables["truth"]["image_id"])
    ]
    file = world.tables / "boxes.csv"
    forms = {"a frame": boxes, "CSV": file, "outputs": outputs}
    found = read(tables["truth"], forms, boxes=tables["true_boxes"])["systems"]
    assert found["CSV"] == found["outputs"] == found["a frame"]
    assert len(found["CSV"]["boxes"]) == len(boxes)
    patients = world.tables / "patients.csv"
    forms = {"CSV": file, "COCO": tmp_path / "results.json"}
    of_coco = read(world.tables / "coco.json", forms, patients=patients)["systems"]
    assert of_coco["CSV"] == of_coco["COCO"] == found["CSV"]


def test_a_truth_in_any_form_is_the_same_truth(tables, world, tmp_path):
    truth = tables["truth"].drop(columns="role")
    truth.set_index("image_id").to_parquet(tmp_path / "truth.parquet")
    tables["true_boxes"].to_parquet(tmp_path / "boxes.parquet")
    labels = truth.set_index("image_id")["label"]
    true = tables["true_boxes"]
    by_image = dict(tuple(true.groupby("image_id")))
    drawn = [
        {"boxes": by_image.get(name, true[:0])[EDGES].to_numpy(float)} for name in truth["image_id"]
    ]
    arrays = {"D": tables["boxes"], "A": tables["a"]}
    files = {"D": world.tables / "boxes.csv", "A": world.tables / "a.csv"}
    patients = {"patients": world.tables / "patients.csv"}
    results = [
        read(truth, files, boxes=true),
        read(tmp_path / "truth.parquet", files, boxes=tmp_path / "boxes.parquet"),
        read(truth[["image_id", "label"]], files, boxes=true, **patients),
        read(world.tables / "coco.json", files, **patients),
        read(labels, arrays, boxes=true, **patients),
        read(truth, arrays, boxes=drawn),
    ]
    for result in results:
        del result["finding"]
        assert result == results[0]
    assert len(results[0]["true_boxes"]) == len(true)


def test_results_on_a_data_set_are_read_where_they_are(world, tmp_path):
    predictions = cxr_compare.Predictions.open(world.predictions("classifier"))
    scores = predictions.scores[["image_id", "score"]]
    scores.to_csv(tmp_path / "scores.csv", index=False)
    forms = (predictions, world.predictions("classifier"), tmp_path / "scores.csv", scores)
    systems = dict(zip("ABCD", forms, strict=True))
    figures = cxr_compare.compare(systems, data=world.data, replicates=100).figures
    of_systems = figures.query("metric == 'auroc' and second == ''").drop(columns="first")
    assert len(of_systems) == 4
    assert len(of_systems.drop_duplicates()) == 1


def test_each_of_several_findings_has_the_figures_that_it_has_alone(tables):
    rng = np.random.default_rng(5)
    truth = tables["truth"].rename(columns={"label": "mass"})
    truth["edema"] = rng.integers(0, 2, len(truth))
    truth["sex"] = rng.integers(0, 2, len(truth))  # describes images, and is no finding
    scores = {
        name: pd.DataFrame({"image_id": truth["image_id"], "mass": tables[name]["score"]}).assign(
            edema=rng.random(len(truth)).round(3)
        )
        for name in ("a", "b")
    }
    every = cxr_compare.compare(scores, truth=truth, target="all", replicates=100)
    assert sorted(every.results) == ["edema", "mass"]
    for finding in ("mass", "edema"):
        alone = cxr_compare.compare(
            {name: table[["image_id", finding]] for name, table in scores.items()},
            truth=truth,
            target=finding,
            replicates=100,
        )
        one, other = figures_of(every.results[finding]), figures_of(alone)
        corrected = one.pop("p_holm"), other.pop("p_holm")
        pd.testing.assert_frame_equal(one, other, check_exact=True)
        assert (corrected[0] >= corrected[1]).sum() == corrected[1].notna().sum() > 5


def several(**columns):
    truth = pd.DataFrame({"image_id": [f"i{n}" for n in range(40)], "mass": [0, 1] * 20})
    truth["edema"] = [0, 0, 1, 1] * 10
    scores = pd.DataFrame({"image_id": truth["image_id"], "mass": np.linspace(0, 1, 40)})
    return truth, scores.assign(**columns)


def test_a_finding_that_a_system_does_not_know_is_left_out_and_a_wrong_score_is_not():
    truth, scores = several()
    result = cxr_compare.compare({"A": scores}, truth=truth, target="all", replicates=100)
    assert [*result.results] == ["mass"]
    _, wrong = several(edema=[7.0, *np.linspace(0, 1, 39)])
    with pytest.raises(InputError) as refused:
        cxr_compare.compare({"A": wrong}, truth=truth, target="all", replicates=100)
    assert "i0" in str(refused.value)


@pytest.mark.parametrize("value", [np.linspace(0, 1, 40), np.zeros((40, 2)), {"mass": [0.5] * 40}])
def test_scores_of_several_findings_need_a_frame_that_names_them(value):
    truth, _ = several()
    with pytest.raises(InputError) as refused:
        cxr_compare.compare({"Net": value}, truth=truth, target="all", replicates=100)
    assert "Net" in str(refused.value)


def test_a_file_of_scores_without_a_finding_is_not_taken_for_each(tmp_path):
    truth, scores = several()
    truth.to_csv(tmp_path / "truth.csv", index=False)
    bare = scores.rename(columns={"mass": "score"})
    bare.to_csv(tmp_path / "bare.csv", index=False)
    call = {"truth": tmp_path / "truth.csv", "replicates": 100}
    with pytest.raises(InputError) as refused:
        cxr_compare.compare({"A": tmp_path / "bare.csv"}, target="all", **call)
    assert "bare.csv" in str(refused.value)
    one = cxr_compare.compare({"A": tmp_path / "bare.csv"}, target="edema", **call)
    assert one.answer.target == "edema"


def test_a_group_of_findings_has_the_highest_score_that_a_file_gives_them(tmp_path):
    truth, scores = several(edema=np.linspace(0.4, 0, 40))
    states = {name: truth[name].map({1: "present", 0: "absent"}) for name in ("mass", "edema")}
    source = write_source(tmp_path / "source", truth["image_id"], states)
    prepare_tables(source, tmp_path / "data", target={"either": ["edema", "mass"]})
    long = scores.melt("image_id", var_name="finding", value_name="score")
    box = {"x1": 1.0, "y1": 1.0, "x2": 9.0, "y2": 9.0}
    other = long.iloc[:5].assign(finding="nodule", score=1.0)
    forms = {
        "wide": scores.rename(columns={"mass": "prob_mass", "edema": "prob_edema"}),
        "long": long,
        "boxes": pd.concat([long, other]).assign(**box),
    }
    for name, table in forms.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    call = {"data": tmp_path / "data", "target": "either", "replicates": 100}
    result = cxr_compare.compare({n: tmp_path / f"{n}.csv" for n in forms}, **call)
    found = result.decisions.pivot(index="image_id", columns="system", values="score")
    highest = scores.set_index("image_id").max(axis=1)[found.index]
    for name in forms:
        assert found[name].tolist() == pytest.approx(highest.tolist())
    with pytest.raises(InputError) as refused:
        cxr_compare.compare({"A": forms["wide"].drop(columns="prob_mass")}, **call)
    assert "mass" in str(refused.value)


@pytest.mark.parametrize("other", ["val", "train"])
def test_patients_in_two_parts_are_refused_or_cautioned(tables, other):
    truth = tables["truth"].copy()
    patient = truth.loc[truth["role"] == "test", "patient_id"].value_counts().index[0]
    first = truth.index[truth["patient_id"] == patient][0]
    truth.loc[first, "role"] = other
    with pytest.raises(InputError) as refused:
        compared({"A": tables["a"]}, tables, truth=truth)
    assert patient in str(refused.value)
    allowed = compared({"A": tables["a"]}, tables, truth=truth, allow_shared_patients=True)
    without = compared({"A": tables["a"]}, tables)
    assert len(allowed.cautions) == len(without.cautions) + 1


def test_a_run_that_was_trained_on_test_patients_is_refused(world, tmp_path):
    data = shutil.copytree(world.data, tmp_path / "data")
    cxr_compare.split(data, name="other", seed=5)
    with pytest.raises(InputError) as refused:
        cxr_compare.compare({"C": world.run("classifier")}, data=data, split="other")
    assert "train" in str(refused.value)
    assert any(character.isdigit() for character in str(refused.value))


@pytest.mark.parametrize("made_on", ["another data set", "loose files"])
def test_predictions_that_are_not_of_the_data_set_are_refused(world, tmp_path, made_on):
    folder = shutil.copytree(world.predictions("classifier"), tmp_path / "predictions")
    stored = json.loads((folder / "predictions.json").read_text())
    other = {**stored["data_set"], "content_id": "0" * 16}
    data_set = None if made_on == "loose files" else other
    folders.edit_record(folder / "predictions.json", data_set=data_set)
    with pytest.raises(InputError) as refused:
        cxr_compare.compare({"C": folder}, data=world.data, replicates=100)
    assert str(folder) in str(refused.value)
    assert "data set" in str(refused.value)


def test_what_is_for_a_truth_is_refused_beside_a_data_set_and_the_other_way_round(world):
    systems = {"A": world.tables / "a.csv"}
    file = world.tables / "true_boxes.csv"
    for option, value in (
        ("boxes", file),
        ("patients", file),
        ("columns", "label=x"),
        ("images", world.tables),
    ):
        with pytest.raises(InputError) as refused:
            cxr_compare.compare(systems, data=world.data, **{option: value})
        assert str(refused.value).startswith((f"{option}: ", f"{option}="))
    truth = world.tables / "truth.csv"
    with pytest.raises(InputError) as refused:
        cxr_compare.compare(systems, truth=truth, split="fold-1")
    assert "fold-1" in str(refused.value)
    for system in (world.predictions("classifier"), world.run("classifier"), world.data):
        with pytest.raises(InputError) as refused:
            cxr_compare.compare({"A": system}, truth=truth)
        assert str(refused.value).startswith(("A: ", str(system)))


def tables_of(folder):
    """Content of the tables of predictions."""
    paths = [path for path in sorted(folder.rglob("*.parquet")) if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_a_comparison_that_was_stopped_while_predicting_goes_on(world, tmp_path):
    """The name of the run looks like a path, and stays inside of the report."""
    out = tmp_path / "a" / "report"
    call = [f"../../C/1={world.run('classifier')}", "--data", world.data, "--replicates", "100"]
    with stopped_while_predicting(1):
        assert cxr("compare", *call, "--out", out) == 130
    assert not (out / "answer.json").exists()
    assert cxr("compare", *call, "--out", out) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report"]
    (made,) = (out / "systems").iterdir()
    whole = tables_of(world.zoo_report / "systems" / "classifier")
    assert len(whole) >= 2
    assert tables_of(made) == whole
    (stopped,), (expected,) = (
        cxr_compare.Result.open(report)
        .figures.query("first == @name and second == '' and metric == 'auroc'")["estimate"]
        .tolist()
        for report, name in ((out, "../../C/1"), (world.zoo_report, "classifier"))
    )
    assert stopped == expected


def test_a_finished_report_stays_unless_it_may_be_overwritten(world, tmp_path, monkeypatch):
    report = shutil.copytree(world.tables_report, tmp_path / "report")
    reports.leave_charts_out(monkeypatch)
    systems = {"Scores": world.tables / "a.csv"}
    call = {"truth": world.tables / "truth.csv", "replicates": 100, "out": report}
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    (tmp_path / "bad.csv").write_text("image_id,score\nimage000,seven\n")
    for given, options in (
        (systems, {}),
        ({"Scores": tmp_path / "bad.csv"}, {"overwrite": True}),
        (systems, {"overwrite": True, "policy": "max_of_all"}),
    ):
        with pytest.raises(InputError):
            cxr_compare.compare(given, **call, **options)
        after = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
        assert after == before
    result = cxr_compare.compare(systems, **call, overwrite=True)
    assert result.systems == ["Scores"]
    assert cxr_compare.Result.open(report).systems == ["Scores"]


def test_a_folder_of_runs_is_its_runs_alone_and_both_together(world):
    result = cxr_compare.Result.open(world.zoo_report)
    assert result.systems == ["classifier", "detector", "classifier + detector"]
    made = sorted(path.name for path in (world.zoo_report / "systems").iterdir())
    assert made == ["classifier", "detector"]
    (own,), (alone,) = (
        each.figures.query("first == @name and second == '' and metric == 'auroc'")["estimate"]
        for each, name in (
            (result, "classifier"),
            (cxr_compare.Result.open(world.report), "CheXNet"),
        )
    )
    assert own == alone


CALLED = ["recall", "specificity", "precision", "f1", "accuracy"]
RANKED = ["auroc", "average_precision", "ap50", "ap", "froc_mean", "pointing_accuracy", "brier"]


# Boxes without scores


@pytest.fixture(scope="module")
def unscored(tables):
    """The boxes that a detector calls at 0.5."""
    return tables["boxes"].query("score >= 0.5").drop(columns="score")


@pytest.fixture(scope="module")
def result(tables, unscored):
    systems = {"U": unscored, "S": tables["a"]}
    return compared(systems, tables, columns=["U.box_unit=px"])


def of_system(result, name="U"):
    rows = result.figures
    return rows[(rows["first"] == name) & (rows["second"] == "")]


def test_decisions_have_the_figures_of_an_image_with_a_box(result, tables, unscored):
    test = tables["truth"].query("role == 'test'")
    called = test["image_id"].isin(unscored["image_id"]).astype(float)
    expected = metrics.classification_metrics(test["label"].to_numpy(), called.to_numpy(), 0.5)
    rows = of_system(result)
    for policy in rows.loc[rows["policy"] != "", "policy"].unique():
        found = rows[rows["policy"] == policy].set_index("metric")["estimate"]
        assert {name: found[name] for name in CALLED} == pytest.approx(
            {name: expected[name] for name in CALLED}
        )


def test_what_needs_a_ranking_is_undefined_and_says_why(result):
    rows = of_system(result).set_index("metric")
    assert rows.loc[RANKED, "estimate"].isna().all()
    assert rows.loc[RANKED, "note"].str.contains("scores").all()
    assert of_system(result, "S").set_index("metric").loc["auroc", "estimate"] > 0.5


def test_a_figure_that_both_have_decides(result):
    assert tuple(result.answer.primary) == ("f1", "max_f1")
    rows = result.figures.query("first == 'U' and second == 'S' and metric == 'f1'")
    at_best = rows[rows["policy"] == "max_f1"].iloc[0]
    assert np.isfinite([at_best["ci_low"], at_best["ci_high"], at_best["p_value"]]).all()
