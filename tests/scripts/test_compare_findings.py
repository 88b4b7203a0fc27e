"""`compare` of several findings: a row a finding, and the mean over them."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare import compare, metrics
from cxr_compare.data_prep.contracts.errors import InputError

NAMES = ["mass", "edema", "hernia"]
KEYS = ["first", "second", "metric", "policy", "subgroup"]


@pytest.fixture(scope="module")
def drawn() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Truth of 160 images of 80 patients, and scores of two systems as frames with ids."""
    rng = np.random.default_rng(3)
    labels = pd.DataFrame({name: rng.random(160) < 0.3 for name in NAMES}).astype(int)
    images = pd.DataFrame({"image_id": [f"i{n:03d}" for n in range(160)]})
    scores = [
        images.join(labels * gain + (1 - gain) * rng.random((160, 3))) for gain in (0.35, 0.15)
    ]
    patients = [f"p{n // 2}" for n in range(160)]
    return images.join(labels).assign(patient_id=patients, sex="F"), scores[0], scores[1]


def _of(drawn, *, named=None, **options):
    truth, first, second = drawn
    systems = named or {"A": first, "B": second}
    return compare(systems, truth=truth, replicates=200, **options)


def test_each_finding_is_as_alone_and_the_mean_is_that_of_the_figures(drawn):
    truth, first, second = drawn
    results = _of(drawn, target="all")
    assert list(results.results) == NAMES
    alone = compare(
        {"A": first.rename(columns={"edema": "score"})[["image_id", "score"]],
         "B": second["edema"].to_numpy()},
        truth=truth.drop(columns=["mass", "hernia"]).rename(columns={"edema": "label"}),
        replicates=200,
    )  # fmt: skip
    figures = [each.to_frame().set_index(KEYS) for each in (alone, results.results["edema"])]
    for column in ("estimate", "ci_low", "ci_high"):
        pd.testing.assert_series_equal(figures[0][column], figures[1][column])
    means = results.macro.set_index(["metric", "first", "second"])["estimate"]
    single = [metrics.estimate("auroc", truth[name], first[name]).estimate for name in NAMES]
    assert means["auroc", "A", ""] == pytest.approx(np.mean(single))
    gap = means["average_precision", "A", ""] - means["average_precision", "B", ""]
    assert means["average_precision", "A", "B"] == pytest.approx(gap)
    assert results.headline.startswith("Mean AUROC over 3 findings: A ")
    assert len(results.tests) == len(NAMES)
    assert (results.tests["p_holm"] >= results.tests["p_value"]).all()


def test_a_finding_that_is_counted_twice_narrows_no_interval(drawn):
    truth, first, second = drawn
    widths = []
    for copies in (["mass", "edema"], ["mass", "edema", "mass_2", "edema_2"]):
        tables = [
            table.assign(mass_2=table["mass"], edema_2=table["edema"])[
                [*copies, *table.columns.intersection(["image_id", "patient_id"])]
            ]
            for table in (truth, first, second)
        ]
        results = _of((*tables,), target=copies)
        macro = results.macro.set_index(["metric", "first", "second"])
        widths.append(macro["ci_high"] - macro["ci_low"])
    pd.testing.assert_series_equal(*widths)


def test_an_array_has_a_column_a_finding(drawn):
    truth, first, second = drawn
    results = compare(
        {"A": first[NAMES].to_numpy(), "B": second[NAMES].to_numpy()},
        truth=truth[NAMES].to_numpy(),
        patients=truth["patient_id"].to_numpy(),
        replicates=200,
    )
    by_name = _of(drawn, target=NAMES).macro["estimate"].tolist()
    assert results.macro["estimate"].tolist() == pytest.approx(by_name)
    with pytest.raises(InputError, match=r"A: has the shape \(160, 2\)"):
        compare({"A": first[NAMES[:2]].to_numpy()}, truth=truth[NAMES].to_numpy())


def test_the_mean_is_as_unsure_as_a_finding_with_an_auroc_of_one(drawn):
    truth, first, _ = drawn
    perfect = first.assign(mass=(truth["mass"] + first["mass"]) / 2)
    tables = [table.assign(mass_2=table["mass"]) for table in (truth, perfect)]
    of_one = {}
    for target in (["mass", "mass_2"], ["mass", "edema"]):
        results = compare({"A": tables[1]}, truth=tables[0], replicates=100, target=target)
        single = results.results["mass"].to_frame().set_index("metric").loc["auroc"]
        assert single["estimate"] == 1
        mean = results.macro.set_index("metric").loc["auroc"]
        of_one[target[1]] = mean["estimate"] - mean["ci_low"], single["estimate"] - single["ci_low"]
        assert mean["ci_high"] <= 1
    assert of_one["mass_2"][0] == pytest.approx(of_one["mass_2"][1])
    assert of_one["edema"][0] > of_one["edema"][1] / 2


def test_a_mean_that_no_patient_changes_is_not_tested(drawn):
    truth, first, second = drawn
    labels = truth[NAMES]
    perfect, reversed_ = (first.assign(**(of + first[NAMES]) / 2) for of in (labels, 1 - labels))
    headline = _of((truth, perfect, reversed_), target=NAMES).headline
    assert "A and B could not be tested: difference 1.000" in headline
    named = {"A": first, "B": first, "C": second}
    results = _of(drawn, named=named, target=NAMES)
    assert "A and B were not shown to differ: difference 0.000" in results.headline
    pairs = results.macro.query("metric == 'auroc' and second != ''")
    assert pairs["p_holm"].notna().tolist() == [False, True, True]


def test_what_not_all_systems_know_is_left_out_and_named(drawn):
    truth, first, second = drawn
    known = {"A": first, "B": second.drop(columns="hernia")}
    results = _of(drawn, named=known, target="all")
    assert list(results.results) == ["mass", "edema"]
    assert list(results.left_out) == ["hernia"]
    assert "hernia (B says nothing about it)" in results.headline
    one_class = truth.assign(edema=0)
    assert list(_of((one_class, first, second), target="all").left_out) == ["edema"]


def test_columns_are_findings_only_where_that_is_said(drawn):
    with pytest.raises(InputError, match=r"mass, edema, hernia may be findings"):
        _of(drawn)
    with pytest.raises(InputError, match=r'target="masss".*mass'):
        _of(drawn, target=["masss", "edema"])
    assert list(_of(drawn, target=["edema", "mass"]).results) == ["edema", "mass"]


def test_labels_beside_scores_are_never_taken_for_scores(drawn):
    truth, first, second = drawn
    named = first.rename(columns=lambda name: name if name == "image_id" else f"prob_{name}")
    both = named.merge(truth, on="image_id")  # scores first, then labels of the same findings
    means = _of((truth, both, second), target=NAMES).macro
    means = means.set_index(["metric", "first", "second"])["estimate"]
    single = [metrics.estimate("auroc", truth[name], first[name]).estimate for name in NAMES]
    assert means["auroc", "A", ""] == pytest.approx(np.mean(single))
    with pytest.raises(InputError, match="prob_mass"):
        _of((truth, both.assign(pred_mass=1), second), target=NAMES)


def test_files_give_the_same_and_a_page(drawn, tmp_path):
    truth, first, second = drawn
    paths = {}
    for name, table in (("truth", truth), ("A", first), ("B", second.add_prefix("prob_"))):
        paths[name] = tmp_path / f"{name}.csv"
        table.rename(columns={"prob_image_id": "image_id"}).to_csv(paths[name], index=False)
    out = tmp_path / "report"
    results = compare(
        [paths["A"], paths["B"]], truth=paths["truth"], target="all", out=out, replicates=200
    )
    in_memory = _of(drawn, target="all")
    means = [each.macro.set_index(KEYS[:3])["ci_low"] for each in (results, in_memory)]
    pd.testing.assert_series_equal(*means)
    assert results.page == out / "report.html"
    assert results.headline[:40] in results.page.read_text()
    saved = in_memory.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "mass" / "report.html").is_file()
    assert saved.page is not None


def test_without_patients_the_page_of_all_findings_speaks_of_images(drawn, tmp_path):
    truth, first, second = drawn
    images = (truth.drop(columns=["patient_id", "sex"]), first, second)
    results = _of(images, target=NAMES[:2])
    page = results.write(tmp_path, results.results).page.read_text()
    assert "160 test images, " in page
    assert "intervals by patient" not in page


def test_boxes_belong_to_the_finding_of_their_row(drawn):
    truth, *_ = drawn
    truth = truth.drop(columns="sex")
    rng = np.random.default_rng(5)
    rows = truth.melt(["image_id", "patient_id"], var_name="finding", value_name="is")
    rows = rows[rows["is"] == 1].assign(x1=10.0, y1=10.0, x2=40.0, y2=50.0)
    boxes = rows[["image_id", "finding", "x1", "y1", "x2", "y2"]]
    found = boxes[rng.random(len(boxes)) < 0.7]
    noise = boxes[rng.random(len(boxes)) < 0.3].assign(x1=200.0, x2=240.0)
    drawn_boxes = pd.concat([found, noise], ignore_index=True)
    systems = {"D": drawn_boxes.assign(score=rng.random(len(drawn_boxes)))}
    results = compare(systems, truth=truth, boxes=boxes, target="all", replicates=100)
    macro = results.macro.set_index("metric")["estimate"]
    froc = [
        each.to_frame().set_index(["first", "metric"])["estimate"]["D", "froc_mean"]
        for each in results.results.values()
    ]
    assert macro["froc_mean"] == pytest.approx(np.mean(froc))
    wrong = boxes.assign(finding="nodule")
    with pytest.raises(InputError, match="boxes: 'nodule' is none of the findings"):
        compare(systems, truth=truth, boxes=wrong, target="all")
