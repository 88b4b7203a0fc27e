"""Studies of readers and systems: published figures, kept ones, other formulas, and refusals."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import (
    f_oneway,
    t,
    ttest_1samp,
    ttest_ind,
    ttest_rel,
)

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters.sets import table_set, write_predictions
from tests.adapters.studies import (
    ReaderEstimate,
    analyse_crossed,
    analyse_nested,
    jackknife_covariance,
)

KEPT = Path(__file__).parent / "kept" / "studies"
KINDS = ("reader", "mean")


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


@pytest.mark.release
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


def compared(cases, reader):
    """Rows of a comparison of one reader with known patients, at the reader's own decisions."""
    patients, label = cases["patient"], cases["label"]
    yield metrics.estimate("auroc", label, reader["rating"], patients)
    for name in ("balanced_accuracy", "recall", "specificity", "accuracy", "f1"):
        yield metrics.estimate(name, label, reader["decision"], patients, threshold=0.5)


def test_one_reader_has_the_interval_that_a_comparison_gives(tmp_path):
    draw_study(tmp_path, 6, 3, 2, per=3, systems=1)
    analyse(tmp_path)
    cases = pd.read_csv(tmp_path / "truth.csv")
    ratings = pd.read_csv(tmp_path / "ratings.csv")
    system = pd.read_csv(tmp_path / "system0.csv").rename(columns={"score": "rating"})
    of_reader = ratings[(ratings["reader"] == "R1") & (ratings["modality"] == "m0")]
    rows = pd.read_csv(tmp_path / "out" / "readers.csv").set_index("metric")
    found = {
        "reader": rows[(rows["reader"] == "R1") & (rows["first"] == "m0")],
        "system": rows[rows["kind"] == "system"],
    }
    for kind, reading in (("reader", of_reader), ("system", system)):
        for expected in compared(cases, cases[["case"]].merge(reading)):
            row = found[kind].loc[expected["metric"]]
            for end in ("estimate", "ci_low", "ci_high"):
                assert row[end] == pytest.approx(expected[end], abs=1e-9), (kind, row.name, end)


def test_the_mean_of_one_reader_is_that_reader(tmp_path):
    draw_study(tmp_path, 1, 1, 2)
    analyse(tmp_path, readers="fixed")
    rows = pd.read_csv(tmp_path / "out" / "readers.csv").query("metric == 'auroc'")
    ends = ["first", "estimate", "ci_low", "ci_high"]
    alone, mean = (rows.loc[rows["kind"] == kind, ends].values.tolist() for kind in KINDS)
    assert alone == mean


def test_a_reader_with_an_auroc_near_1_has_no_end_at_1(tmp_path):
    cases = [f"c{number}" for number in range(60)]
    label = np.arange(60) < 20
    truth = pd.DataFrame({"case": cases, "label": label.astype(int)})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    rating = np.where(label, 5, 1)
    rating[[0, 30]] = 3
    readers = [truth[["case"]].assign(reader=name, rating=rating) for name in "AB"]
    pd.concat(readers).to_csv(tmp_path / "ratings.csv", index=False)
    analyse(tmp_path)
    rows = pd.read_csv(tmp_path / "out" / "readers.csv").query("kind == 'reader'")
    # 1 pair of 800 is equal; of 20 patients Clopper and Pearson allow for 0.83.
    assert (rows["estimate"] == 1 - 0.5 / 800).all()
    assert (rows["ci_low"] < 0.98).all()
    assert (rows["ci_high"] < 1).all()


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


def test_ratings_of_a_spreadsheet_and_with_decimal_commas_are_read(tmp_path):
    draw_study(tmp_path, 1, 2, 2)
    table = pd.read_csv(tmp_path / "ratings.csv")
    table.to_excel(tmp_path / "ratings.xlsx", index=False)
    table.to_csv(tmp_path / "semicolons.csv", index=False, sep=";", decimal=",")
    contents = set()
    for name in ("ratings.csv", "ratings.xlsx", "semicolons.csv"):
        out = tmp_path / f"from {name}"
        cxr_compare.readers([tmp_path / name], truth=tmp_path / "truth.csv", out=out, system=())
        contents.add((out / "readers.csv").read_text())
    assert len(contents) == 1


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


@pytest.mark.parametrize("seed", range(2))
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


@pytest.fixture(scope="module")
def read_set(tmp_path_factory):
    """A data set with readings of its test images, and a system's predictions by its split."""
    tmp_path = tmp_path_factory.mktemp("read")
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

    return data, predictions, tmp_path / "ratings.csv"


def test_a_system_decides_by_the_threshold_of_its_validation_images(read_set, tmp_path):
    data, predictions, ratings = read_set
    out = tmp_path / "out"
    cxr_compare.readers([ratings], data=data, out=out, system={"AI": predictions("default")})
    table = pd.read_csv(out / "readers.csv").query("kind == 'system'").set_index("metric")
    assert table.loc[["recall", "specificity"], "estimate"].tolist() == [0.5, 1.0]


def test_a_system_is_compared_on_the_test_images_of_its_own_split_alone(read_set, tmp_path):
    data, predictions, ratings = read_set
    options = {"data": data, "out": tmp_path / "out", "system": {"AI": predictions("swapped")}}
    with pytest.raises(InputError, match=r"AI.*i001.*swapped"):
        cxr_compare.readers([ratings], **options)
    assert not (tmp_path / "out").exists()


def test_a_system_in_a_folder_without_predictions_is_refused_by_its_name(read_set, tmp_path):
    data, _, ratings = read_set
    options = {"data": data, "out": tmp_path / "out", "system": {"AI": data}}
    with pytest.raises(InputError, match=re.escape(str(data))):
        cxr_compare.readers([ratings], **options)


def test_predictions_on_another_data_set_are_refused_though_its_images_are_called_alike(
    read_set, tmp_path
):
    data, _, ratings = read_set
    ids = [f"i{number:03d}" for number in range(80)]
    other = table_set(tmp_path / "b", ids, {"opacity": ["present"] * 80}, patient_id=ids[::-1])
    rows = pd.DataFrame({"image_id": ids, "finding": "opacity", "score": 0.5})
    made = write_predictions(tmp_path / "p", other, ids, "AI", split="default", scores=rows)
    with pytest.raises(InputError, match="AI"):
        cxr_compare.readers([ratings], data=data, out=tmp_path / "out", system={"AI": made})


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


RNG = np.random.default_rng(7)
# Van Dyke 1993: AUCs of five readers with cine MRI (0) and spin-echo MRI (1), trapezoidal.
FIGURES = np.array(
    [
        [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066],
        [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169],
    ]
)


def covariance_of(system, reader, error, cov1, cov2, cov3):
    same_system, same_reader = system[:, None] == system, reader[:, None] == reader
    across = np.where(same_reader, cov1, cov3)
    return np.where(same_system, np.where(same_reader, error, cov2), across)


def some_covariance(n):
    part = RNG.normal(0, 0.02, (n, n + 3))
    return part @ part.T / 5 + 2e-4


def digits(numbers, places):
    return [round(number, places) for number in numbers]


def test_published_analysis_from_its_own_covariances():
    covariance = covariance_of(
        *(index.ravel() for index in np.indices((2, 5))), 80229e-8, 34661e-8, 34407e-8, 23903e-8
    )
    gap = analyse_crossed(FIGURES, covariance).differences[0, 1]
    assert (round(gap.freedom, 2), round(gap.p_value, 4)) == (15.26, 0.0517)
    assert digits(gap.interval_at(0.95), 5) == [-0.08796, 0.00036]
    fixed = analyse_crossed(FIGURES, covariance, readers="fixed").differences[0, 1]
    # The covariances are rounded, which moves the last digit.
    assert fixed.interval_at(0.95) == pytest.approx((-0.08049, -0.00711), abs=1.1e-5)


def test_without_covariance_between_readers_it_is_the_t_test_of_scipy():
    first, second = RNG.normal(0.8, 0.05, 6), RNG.normal(0.85, 0.02, 6)
    nothing = np.zeros((12, 12))
    paired = analyse_crossed([first, second], nothing).differences[0, 1]
    assert paired.p_value == pytest.approx(ttest_rel(first, second).pvalue)
    welch = ttest_ind(first, second[:4], equal_var=False)
    nested = analyse_nested([first, second[:4]], np.zeros((10, 10))).differences[0, 1]
    assert nested.p_value == pytest.approx(welch.pvalue)
    assert nested.freedom == pytest.approx(welch.df)
    assert nested.interval_at(0.9) == pytest.approx(tuple(welch.confidence_interval(0.9)))
    alone = analyse_nested([first - 0.8], np.zeros((6, 6))).systems[0]
    assert alone.p_value == pytest.approx(ttest_1samp(first, 0.8).pvalue)


def test_overall_test_of_nested_readers_is_that_of_variance_analysis_without_cases():
    first = RNG.normal(0.8, 0.05, 5)
    groups = [first, first[::-1] + 0.03, np.roll(first, 2) + 0.01]  # the same spread in each
    test = analyse_nested(groups, np.zeros((15, 15))).overall
    expected = f_oneway(*groups)
    assert (test.statistic, test.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert test.freedom == (2, pytest.approx(12))


def test_two_systems_give_the_same_p_value_overall_and_as_a_pair():
    covariance = some_covariance(7)
    figures = RNG.uniform(0.7, 0.9, 7)
    for readers in ("random", "fixed", ["random", "fixed"]):
        study = analyse_nested([figures[:4], figures[4:]], covariance, readers=readers)
        assert study.overall.p_value == pytest.approx(study.differences[0, 1].p_value)


def test_readers_against_a_program_are_their_differences_from_it():
    """Chakraborty 2017: one treatment, of which each figure is reader minus program."""
    covariance, figures = some_covariance(5), RNG.uniform(0.7, 0.9, 5)
    minus = np.column_stack([np.eye(4), -np.ones(4)])
    alone = analyse_nested([minus @ figures], minus @ covariance @ minus.T).systems[0]
    study = analyse_nested([figures[:4], figures[4:]], covariance, readers=["random", "fixed"])
    gap = study.differences[0, 1]
    assert (gap.estimate, gap.error, gap.freedom) == pytest.approx(
        (alone.estimate, alone.error, alone.freedom)
    )
    assert study.systems[1].error == pytest.approx(np.sqrt(covariance[4, 4]))
    assert study.systems[1].freedom == np.inf


def test_a_crossed_pair_is_its_differences_by_reader():
    covariance, figures = some_covariance(8), RNG.uniform(0.7, 0.9, (2, 4))
    minus = np.column_stack([np.eye(4), -np.eye(4)])
    alone = analyse_nested([minus @ figures.ravel()], minus @ covariance @ minus.T).systems[0]
    gap = analyse_crossed(figures, covariance).differences[0, 1]
    assert (gap.error, gap.freedom) == pytest.approx((alone.error, alone.freedom))


def test_readers_that_share_less_than_systems_do_never_shrink_the_variance():
    system, reader = (index.ravel() for index in np.indices((2, 3)))
    low, high = (covariance_of(system, reader, 4e-4, 2e-4, 1e-4, cov3) for cov3 in (1e-4, 3e-4))
    figures = RNG.uniform(0.7, 0.9, (2, 3))
    for analyse in (analyse_crossed, analyse_nested):
        bounded = analyse(figures, high).differences[0, 1]
        assert bounded.error == pytest.approx(analyse(figures, low).differences[0, 1].error)


def test_fixed_readers_have_the_variance_of_their_mean():
    covariance, figures = some_covariance(6), RNG.uniform(0.7, 0.9, 6)
    weights = np.array([1 / 4] * 4 + [-1 / 2] * 2)
    study = analyse_nested([figures[:4], figures[4:]], covariance, readers="fixed")
    assert study.differences[0, 1].error == pytest.approx(np.sqrt(weights @ covariance @ weights))


def test_jackknife_of_a_mean_is_its_variance_by_the_textbook():
    values = RNG.normal(size=(20, 2))
    left_out = (values.sum(axis=0) - values) / 19
    assert jackknife_covariance(left_out) == pytest.approx(np.cov(values.T) / 20)


def test_a_cautious_interval_takes_each_part_of_the_variance_by_its_own_t():
    figures, covariance = np.array([0.80, 0.86, 0.91]), 4e-4 * (0.4 + 0.6 * np.eye(3))
    (mean,) = analyse_nested([figures], covariance).systems
    parts = t.ppf(0.975, 2) ** 2 * figures.var(ddof=1) / 3, 1.959964**2 * 4e-4 * 0.4
    low, high = mean.cautious_interval_at(0.95)
    assert (low + high) / 2 == pytest.approx(mean.estimate)
    assert (high - low) / 2 == pytest.approx(np.sqrt(sum(parts)), rel=1e-6)
    assert high - low > np.diff(mean.interval_at(0.95))[0]


@pytest.mark.parametrize(("value", "level"), [(0.04, 0.9), (0.12, 0.99), (-0.12, 0.999)])
def test_a_cautious_p_value_is_where_the_cautious_interval_ends_at_zero(value, level):
    parts = ((2e-4, 2.0),)
    reach = ReaderEstimate(0.0, 0.02, squares=parts).cautious_interval_at(level)[1]
    at_zero = ReaderEstimate(np.sign(value) * reach, 0.02, squares=parts, span=np.inf)
    assert at_zero.cautious_p_value == pytest.approx(1 - level, rel=1e-6)
    estimate = ReaderEstimate(value, 0.02, squares=parts, span=np.inf)
    low, high = estimate.cautious_interval_at(0.95)
    assert (estimate.cautious_p_value < 0.05) == (low > 0 or high < 0)


def test_a_cautious_p_value_has_its_limits():
    parts = ((2e-4, 2.0),)
    assert ReaderEstimate(0.0, 0.02, squares=parts).cautious_p_value == 1.0
    assert ReaderEstimate(0.5, 1e-9, squares=((1e-18, 40.0),)).cautious_p_value == 1e-12
    assert ReaderEstimate(0.5, None).cautious_p_value is None


@pytest.mark.parametrize(("systems", "readers"), [(2, 3), (3, 2), (3, 4), (5, 4)])
def test_degrees_of_freedom_between_readers_of_a_crossed_study(systems, readers):
    n = systems * readers
    study = analyse_crossed(RNG.uniform(0.7, 0.9, (systems, readers)), some_covariance(n))
    assert {gap.freedom_between for gap in study.differences.values()} == {
        (systems - 1) * (readers - 1)
    }
    assert {mean.freedom_between for mean in study.systems} == {readers - 1}
    fixed = analyse_crossed(
        RNG.uniform(0.7, 0.9, (systems, readers)), some_covariance(n), readers="fixed"
    )
    assert fixed.differences[0, 1].freedom_between == 0


def test_five_modalities_give_the_published_overall_test():
    """RJafroc 3.6.1, dataset04, FOM wAFROC, Obuchowski-Rockette by jackknife, RRRC."""
    figures = np.array(
        [
            [0.77926667, 0.72489167, 0.703625, 0.80509167],
            [0.787, 0.7269, 0.72261667, 0.80378333],
            [0.72969167, 0.71575833, 0.67230833, 0.77265833],
            [0.81013333, 0.74311667, 0.69435833, 0.82940833],
            [0.7488, 0.682275, 0.655175, 0.77125],
        ]
    )
    parts = 92808365e-11, 42203598e-11, 33615564e-11, 30431124e-11
    system, reader = (index.ravel() for index in np.indices(figures.shape))
    study = analyse_crossed(figures, covariance_of(system, reader, *parts))
    assert round(study.overall.statistic, 4) == 7.8003
    assert study.overall.freedom == (4, pytest.approx(36.793343, rel=1e-5))
    assert round(study.overall.p_value, 6) == 0.000117
    gap = study.differences[3, 4]
    assert (round(gap.error, 6), round(gap.p_value, 7)) == (0.012186, 0.0000652)
    assert round(study.components.interaction, 8) == -0.00030460
    assert round(study.components.reader, 7) == 0.0022086


@pytest.mark.parametrize(
    ("program", "readers", "published"),
    [
        # wAFROC of datasetCadSimuFroc, then the AUROC of its highest ratings.
        (
            0.628125,
            [0.75854167, 0.74947917, 0.86703125, 0.80052083, 0.76869792, 0.786875, 0.84,
             0.76520833, 0.79135417],
            (0.0015276535, 0.0027698956, 0.0020995306, 3.4394083, 1429.8734, 0.00059975168),
        ),
        (
            0.81692708,
            [0.8415625, 0.84119792, 0.89973958, 0.838125, 0.85635417, 0.87869792, 0.85838542,
             0.79703125, 0.826875],
            (0.0008777927, 0.0013995491, 0.0009241680, 0.99286888, 877.88638, 0.32104743),
        ),
    ],
)  # fmt: skip
def test_a_difference_from_a_program_is_the_published_one(program, readers, published):
    """RJafroc 3.6.1, StCadVsRad, method 1T-RRRC; here the covariance is of its components."""
    _, error, cov2, statistic, freedom, p_value = published
    # With a program that does not vary, readers have the covariance of the differences.
    covariance = np.zeros((10, 10))
    covariance[:9, :9] = cov2 + (error - cov2) * np.eye(9)
    study = analyse_nested([readers, [program]], covariance, readers=["random", "fixed"])
    gap = study.differences[0, 1]
    assert gap.estimate / gap.error == pytest.approx(statistic, rel=1e-5)
    assert gap.freedom == pytest.approx(freedom, rel=1e-4)
    assert gap.p_value == pytest.approx(p_value, rel=1e-4)


def test_nothing_that_varies_gives_no_interval():
    study = analyse_crossed(np.full((2, 3), 0.8), np.zeros((6, 6)))
    assert study.differences[0, 1] == ReaderEstimate(0.0, None, span=np.inf)
    assert study.differences[0, 1].interval_at(0.95) is None
    assert study.differences[0, 1].p_value is None
    assert study.overall is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: analyse_nested([[0.8], [0.9, 0.8]], np.eye(3)),  # one reader who is random
        lambda: analyse_nested([[0.8, 0.7]], np.eye(3)),
        lambda: analyse_nested([[0.8, np.nan]], np.eye(2)),
        lambda: analyse_crossed([[0.8], [0.9]], np.eye(2)),
        lambda: jackknife_covariance([[0.8]]),
    ],
)
def test_a_study_that_cannot_be_analysed_is_refused(call):
    with pytest.raises(InputError):
        call()
