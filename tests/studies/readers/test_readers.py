"""Reader studies: what files must say, how designs are told apart, and what the page claims."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    FREEDOM_OF_THE_OVERALL_TEST,
    OverallTest,
)
from cxr_compare.scripts.cli import run_command
from cxr_compare.studies.readers import reader_analysis as analysis_module
from cxr_compare.studies.readers import reader_sentences
from cxr_compare.studies.readers.reader_analysis import (
    OverallResult,
    ReaderAnalysis,
    analyse_readers,
)
from cxr_compare.studies.readers.reader_files import read_reading_table, read_truth
from cxr_compare.studies.readers.reader_page import write_readers
from cxr_compare.studies.readers.reader_statements import (
    component_sentences,
    overall_test_text,
    reader_notes,
    reader_statements,
    variance_text,
)
from cxr_compare.studies.readers.readers import readers as command
from cxr_compare.studies.readers.readings import join_readings

N = 60


def truth_frame(n=N, patients=None):
    label = np.arange(n) % 3 == 0
    cases = [f"c{number:03d}" for number in range(n)]
    return pd.DataFrame(
        {"label": label, "patient": patients or cases}, index=pd.Index(cases, name="case")
    )


def reading(reader, modality, skill, seed, truth=None, decide=False):
    truth = truth_frame() if truth is None else truth
    noise = np.random.default_rng(seed).normal(0, 1, len(truth))
    rating = np.clip(np.round(skill * truth["label"].to_numpy() + noise + 2), 1, 5)
    table = pd.DataFrame(
        {"reader": reader, "modality": modality, "case": truth.index, "rating": rating}
    )
    return table.assign(decision=(rating >= 3) * 1.0) if decide else table


def crossed(skills=(1.0, 1.4), n_readers=4, **options):
    return [
        reading(f"R{r}", f"m{m}", skill, 10 * r + m, **options)
        for r, (m, skill) in product(range(n_readers), enumerate(skills))
    ]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def differences_of(tables):
    """Return the differences in AUROC of some readings."""
    study = join_readings(truth_frame(), tables, {})
    return analyse_readers(study).rows_of("difference", "auroc")


def test_figures_of_the_van_dyke_study_come_out_of_its_files(shared_data, tmp_path, capsys):
    folder = shared_data / "reader_study_vandyke"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    out = tmp_path / "out"
    asked = {"out": out, "truth": folder / "truth.csv", "positive_from": 3, "as_json": True}
    run_command(command, [folder / "ratings.csv"], **asked)
    shown = capsys.readouterr()
    stored = json.loads(shown.out)
    assert shown.err.splitlines()[0] == stored["answer"]
    assert shown.err.endswith(f"Next: open {out / 'readers.html'} in a browser\n")
    assert "was not shown to differ" in stored["answer"]
    interval = "(95 % interval −0.0880 to 0.0004)"  # with three digits it would touch 0
    assert f"−0.044 {interval}, for readers and cases like" in stored["answer"]
    table = pd.read_csv(out / "readers.csv")
    gap = table[(table["kind"] == "difference") & (table["metric"] == "auroc")].iloc[0]
    assert round(gap["std_error"], 5) == 0.02075
    assert round(gap["df"], 2) == 15.26
    assert set(table["metric"]) == {
        "auroc",
        "balanced_accuracy",
        "recall",
        "specificity",
        "accuracy",
        "f1",
    }


@pytest.mark.parametrize("name", ["ratings.xlsx", "ratings.csv"])
def test_ratings_are_read_of_a_spreadsheet_and_with_semicolons(tmp_path, name):
    table = reading("R1", "m0", 1.0, 3).assign(rating=lambda frame: frame["rating"] + 0.5)
    plain = tmp_path / "plain.csv"
    table.to_csv(plain, index=False)
    if name.endswith("xlsx"):
        table.to_excel(tmp_path / name, index=False)
    else:
        table.to_csv(tmp_path / name, index=False, sep=";", decimal=",")
    read = [read_reading_table(path) for path in (plain, tmp_path / name)]
    pd.testing.assert_frame_equal(*read)


def test_jackknife_covariance_is_near_the_closed_one_of_obuchowski():
    """With patients of two cases each; both estimate the same variance, to a few per cent."""
    truth = truth_frame(120, [f"p{number // 2}" for number in range(120)])
    rows = reading("A", "m", 1.0, 1, truth)
    study = join_readings(truth, [rows, reading("B", "m", 1.0, 2, truth)], {})
    row = analyse_readers(study, readers="fixed").rows_of("reader", "auroc")[0]
    owner = np.arange(120) // 2
    closed = auroc_parts(truth["label"], rows["rating"], owner, 60)
    assert row.estimate == pytest.approx(closed.value)
    assert row.std_error == pytest.approx(np.sqrt(closed.variance), rel=0.05)


def test_left_out_in_chunks_is_left_out_at_once(monkeypatch):
    study = join_readings(truth_frame(), crossed(), {})
    whole = analyse_readers(study).rows
    monkeypatch.setattr(analysis_module, "_ROWS_AT_ONCE", 7)
    assert analyse_readers(study).rows == whole


@pytest.mark.parametrize(
    ("keep", "design", "n_readers"),
    [
        (lambda reader, modality: True, "crossed", 4),
        # R3 reads with m0 only: the pair is of the three who read with both.
        (lambda r, m: (r, m) != ("R3", "m1"), "crossed, by the 3 of 4 readers with both", 3),
        (lambda r, m: (r in ("R0", "R1")) == (m == "m0"), "nested: readers differ by modality", 4),
    ],
    ids=["crossed", "partly crossed", "nested"],
)
def test_design_follows_from_who_read_what(keep, design, n_readers):
    tables = [t for t in crossed() if keep(t["reader"].iloc[0], t["modality"].iloc[0])]
    row = differences_of(tables)[0]
    assert (row.design, row.n_readers) == (design, n_readers)
    assert row.std_error > 0


def test_readers_who_read_with_one_modality_only_leave_the_pair_as_it_was():
    tables = crossed(n_readers=3)
    alone = analyse_readers(join_readings(truth_frame(), tables, {})).rows_of(
        "difference", "auroc"
    )[0]
    more = join_readings(truth_frame(), [*tables, reading("X", "m0", 0.2, 99)], {})
    row = analyse_readers(more).rows_of("difference", "auroc")[0]
    assert (row.estimate, row.std_error) == (alone.estimate, alone.std_error)
    answer = reader_statements(analyse_readers(more))[0].text
    assert not re.search(r"“m0” \(0", answer)  # the mean of m0 is of other readers


def test_cases_that_a_reader_left_out_are_left_out_of_that_reader_only():
    tables = crossed()
    tables[0] = tables[0].iloc[6:]
    study = join_readings(truth_frame(), tables, {})
    assert "reader R0 with m0, 54 of 60" in study.notes[0]
    full = analyse_readers(join_readings(truth_frame(), crossed(), {}))
    part = analyse_readers(study)
    assert part.rows_of("reader", "auroc")[0].n_cases == 54
    assert part.rows_of("reader", "auroc")[1:] == full.rows_of("reader", "auroc")[1:]
    error = full.rows_of("difference", "auroc")[0].std_error
    assert part.rows_of("difference", "auroc")[0].std_error == pytest.approx(error, rel=0.2)


def test_a_system_is_compared_with_readers_on_the_cases_that_they_read():
    truth = truth_frame()
    tables = crossed(skills=(0.3,))
    cut = [table.iloc[:48] for table in tables]
    score = reading("AI", "", 4.0, 5)
    study = join_readings(truth, cut, {"AI": score})
    assert "12 of 60 cases were read by nobody" in study.notes[0]
    result = analyse_readers(study)
    assert result.rows_of("system", "auroc")[0].n_cases == 48
    row = result.rows_of("difference", "auroc")[0]
    assert (row.first, row.second, row.design) == (
        "m0",
        "AI",
        "readers against a stand-alone system",
    )
    assert row.decided
    answer = reader_statements(result)[0].text
    assert re.match(r"AI \(0\.\d+\) had a higher AUROC than readers \(“m0”: 0\.\d+\)", answer)
    assert answer.endswith("for readers and cases like these.")


@pytest.mark.parametrize("n_readers", [3, 5])
def test_fewer_than_five_readers_have_a_cautious_interval_against_a_system(n_readers):
    tables = crossed(skills=(0.8,), n_readers=n_readers)
    study = join_readings(truth_frame(), tables, {"AI": reading("AI", "", 1.2, 5)})
    result = analyse_readers(study)
    (gap,) = result.rows_of("difference", "auroc")
    (mean,) = result.rows_of("mean", "auroc")
    cautious = n_readers < 5
    assert (gap.ci_low_all < gap.ci_low) == (gap.ci_high < gap.ci_high_all) == cautious
    assert (mean.ci_low_all is not None) == cautious
    assert any("cautious" in note.lower() for note in reader_notes(result)) == cautious


@pytest.mark.parametrize(
    ("n_modalities", "n_readers", "cautious"),
    [(2, 4, True), (2, 5, False), (3, 2, True), (3, 3, False)],
)
def test_degrees_of_freedom_between_readers_decide_what_a_claim_rests_on(
    n_modalities, n_readers, cautious
):
    skills = np.linspace(0.6, 1.4, n_modalities)
    rows = differences_of(crossed(skills, n_readers=n_readers))
    comparisons = n_modalities * (n_modalities - 1) // 2
    for row in rows:
        assert row.freedom_between == (n_modalities - 1) * (n_readers - 1)
        assert row.cautious == cautious
        published = min(1.0, comparisons * row.p_value)
        assert row.p_value_all >= published * (1 - 1e-9)
        assert (row.p_value_all > published * 1.001) == (cautious and published < 1)
        assert row.decided == (row.p_value_all < 0.05)


def test_a_small_published_p_that_few_readers_do_not_confirm_has_its_reason_beside_it(tmp_path):
    study = join_readings(truth_frame(), crossed((0.5, 1.4), n_readers=2), {})
    result = analyse_readers(study)
    (row,) = result.rows_of("difference", "auroc")
    assert row.p_value < 0.05 < row.p_value_all
    (statement,) = reader_statements(result)
    assert not statement.shown
    assert "not shown to differ" in statement.text
    assert "is not enough with 1 degree of freedom between readers" in statement.text
    html = write_readers(result, tmp_path).read_text()
    assert reader_sentences.claim_basis(1, 1) in html
    assert "p of the claim" in html
    assert reader_sentences.not_enough(overall_test_text(result.crossed["auroc"].overall)) in html


def test_the_overall_test_of_three_modalities_comes_first(tmp_path):
    study = join_readings(truth_frame(), crossed((0.2, 1.3, 1.5)), {})
    result = analyse_readers(study)
    test = result.crossed["auroc"].overall
    first, *pairs = reader_statements(result)
    assert first.shown
    assert first.text.startswith(
        "Readers' AUROC differed between the 3 modalities: overall test F(2"
    )
    assert len(pairs) == 3
    stored = json.loads(write_readers(result, tmp_path).with_suffix(".json").read_text())
    assert list(stored)[:2] == ["answer", "overall"]
    assert stored["answer"] == stored["findings"][0]["text"] == first.text
    assert stored["overall"]["p_value"] == pytest.approx(test.p_value)
    assert stored["overall"]["statistic"] == pytest.approx(test.statistic)
    assert stored["overall"]["freedom"] == pytest.approx(test.freedom)
    shown = sum(pair.shown for pair in pairs)
    assert (stored["overall"]["pairs"], stored["overall"]["pairs_decided"]) == (3, shown)
    html = (tmp_path / "readers.html").read_text()
    heading = re.search("<h1.*?</h1>", html, re.DOTALL)[0]
    assert "overall test F(2" in heading
    assert html.index("<h3>Overall test") < html.index("<h3>Comparisons")


def test_equal_modalities_are_not_shown_to_differ_by_the_overall_test():
    same = [reading(f"R{r}", f"m{m}", 1.0, 10 * r + m) for r, m in product(range(4), range(3))]
    result = analyse_readers(join_readings(truth_frame(), same, {}))
    assert result.crossed["auroc"].overall.p_value > 0.05
    first = reader_statements(result)[0]
    assert not first.shown
    assert "was not shown to differ between the 3 modalities: overall test F(2" in first.text
    assert "pairs" not in first.text


def overall_of(n_shown, *, p_value=0.01, decides=True):
    return OverallResult(
        test=OverallTest(5.0, (2, 4.0), p_value),
        n_modalities=3,
        n_readers=3,
        freedom_between=4,
        significant=p_value < 0.05,
        decides=decides,
        n_pairs=3,
        n_pairs_shown=n_shown,
    )


@pytest.mark.parametrize(
    ("overall", "differ", "words"),
    [
        (overall_of(1), True, "1 of 3 pairs of modalities is shown to differ."),
        (overall_of(0), True, "Which of them differ is not shown"),
        (
            overall_of(2, p_value=0.06),
            False,
            "2 of 3 pairs of modalities are nevertheless shown to differ",
        ),
        (overall_of(0, decides=False), False, "This p-value is not enough: with fewer than 6"),
        (overall_of(1, decides=False), True, "1 of 3 pairs of modalities is shown to differ."),
    ],
)
def test_overall_test_and_pairs_that_disagree_are_explained(monkeypatch, overall, differ, words):
    result = analyse_readers(join_readings(truth_frame(), crossed((1.0, 1.2, 1.4)), {}))
    monkeypatch.setattr(ReaderAnalysis, "overall", lambda self, metric: overall)
    first = reader_statements(result)[0]
    assert first.shown == differ
    assert ("differed between" in first.text) == differ
    assert words in first.text


def test_two_readers_of_three_modalities_are_not_decided_by_the_overall_test_alone():
    result = analyse_readers(
        join_readings(truth_frame(), crossed((0.6, 1.0, 1.4), n_readers=2), {})
    )
    assert not result.overall("auroc").decides
    enough = analyse_readers(join_readings(truth_frame(), crossed((0.6, 1.0, 1.4)), {}))
    assert enough.overall("auroc").decides
    fixed = analyse_readers(
        join_readings(truth_frame(), crossed((0.6, 1.0, 1.4), n_readers=2), {}), readers="fixed"
    )
    assert fixed.overall("auroc").decides


def test_readers_who_lack_a_modality_leave_no_overall_test_and_the_page_says_so(tmp_path):
    tables = crossed((1.0, 1.2, 1.4))[:-1]
    result = analyse_readers(join_readings(truth_frame(), tables, {}))
    assert result.overall("auroc") is None
    assert "overall test" not in reader_statements(result)[0].text
    html = write_readers(result, tmp_path).read_text()
    assert reader_sentences.no_overall(3) in html


def test_components_of_readers_against_a_system_are_on_the_page_in_the_text_and_in_json(tmp_path):
    tables = crossed(skills=(0.8,))
    study = join_readings(truth_frame(), tables, {"AI": reading("AI", "", 1.2, 5)})
    result = analyse_readers(study)
    (against,) = result.against
    assert (against.metric, against.modality, against.system) == ("auroc", "m0", "AI")
    gap = result.rows_of("difference", "auroc")[0]
    parts = against.components
    assert gap.std_error**2 == pytest.approx(parts.mean_square / 4 + max(parts.cov2, 0))
    (text,) = component_sentences(result)
    html = write_readers(result, tmp_path).read_text()
    (stored,) = json.loads((tmp_path / "readers.json").read_text())["against_systems"]
    for name in ("mean_square", "reader", "cov2", "error"):
        value = getattr(parts, name)
        assert variance_text(value) in text
        assert variance_text(value) in html
        assert stored["components"][name] == pytest.approx(value)


def test_the_figures_of_the_cautions_are_those_of_the_simulation():
    table = pd.read_csv(Path(__file__).parents[3] / "docs" / "validity.csv")
    model = table[table["design"].str.contains("modalities")]
    sizes = model["design"].str.extract(r"(\d+) modalities, (\d+) readers").astype(int)
    freedom = (sizes[0] - 1) * (sizes[1] - 1)
    of_pair = reader_sentences.few_freedom([1], FREEDOM_OF_A_CLAIM)
    of_all = reader_sentences.overall_weak(1, FREEDOM_OF_THE_OVERALL_TEST)
    for counted, least, text in (
        ("readers, published @ pair", FREEDOM_OF_A_CLAIM, of_pair),
        ("readers, published @ overall", FREEDOM_OF_THE_OVERALL_TEST, of_all),
    ):
        rows = model[model["counted"] == counted]
        most = rows.loc[freedom < least, "share"].max()
        stated = int(re.search(r"up to (\d+) %", text)[1])
        assert stated == pytest.approx(100 * most, abs=2)
        assert rows.loc[freedom >= least, "share"].max() < 0.075  # of 1,000 sets
    assert model.loc[model["counted"] == "readers, model", "share"].max() < 0.075  # of 1,000 sets


def test_a_claim_rests_on_the_interval_of_all_comparisons():
    """Some difference is shown by its own interval, and not by the simultaneous one."""
    tables = crossed(skills=(1.0, 1.45, 1.1))
    result = analyse_readers(join_readings(truth_frame(), tables, {}))
    rows = result.rows_of("difference", "auroc")
    assert len(rows) == 3
    for row, found in zip(rows, reader_statements(result)[1:], strict=True):
        assert row.ci_low_all < row.ci_low
        assert found.shown == (row.ci_low_all > 0 or row.ci_high_all < 0)
        assert ("was higher" in found.text) == found.shown
        assert "simultaneous 95 % interval of 3 comparisons" in found.text
        alone = row.p_value < 0.05 and not row.decided
        assert ("for all 3 comparisons at once (Bonferroni)" in found.text) == alone
    assert any((row.ci_low > 0 or row.ci_high < 0) and not row.decided for row in rows)


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        ({}, "for readers and cases like these."),
        ({"readers": "fixed"}, "for these 4 readers and cases like these."),
        ({"cases": "fixed"}, "for readers like these on these 60 cases."),
    ],
)
def test_the_answer_says_what_is_random(options, ending):
    result = analyse_readers(join_readings(truth_frame(), crossed(), {}), **options)
    assert reader_statements(result)[0].text.endswith(ending)


def test_decisions_alone_are_evaluated_by_balanced_accuracy():
    tables = [table.drop(columns="rating") for table in crossed(decide=True)]
    result = analyse_readers(join_readings(truth_frame(), tables, {}))
    assert result.primary == "balanced_accuracy"
    halves = [result.rows_of("mean", metric)[0].estimate for metric in ("recall", "specificity")]
    assert result.rows_of("mean", "balanced_accuracy")[0].estimate == pytest.approx(np.mean(halves))


def test_a_reader_who_is_never_wrong_has_no_interval():
    tables = crossed(decide=True)
    tables[0]["decision"] = truth_frame()["label"].to_numpy() * 1.0
    result = analyse_readers(join_readings(truth_frame(), tables, {}))
    row = result.rows_of("reader", "recall")[0]
    assert (row.estimate, row.ci_low, row.std_error) == (1.0, None, None)


def test_the_page_shows_every_reader_and_says_what_to_beware_of(tmp_path):
    few = truth_frame()
    few["label"] = np.arange(N) % 6 == 0  # ten positive patients
    tables = [
        reading(f"R{r}", m, 1.2, r, few, True) for r, m in product(range(2), ("plain", "aid"))
    ]
    tables.append(reading("Lone", "third", 1.2, 9, few, True))
    system = reading("AI", "", 2.0, 5, few).drop(columns="modality").assign(modality="")
    result = analyse_readers(join_readings(few, tables, {"AI": system}))
    html = write_readers(result, tmp_path).read_text()
    for text in (
        "R0",
        "R1",
        "Lone",
        "AI, system",
        "Only 10 patients have positive cases",
        "One reader used third",
        reader_sentences.undecided_systems(["AI"]),
        "nested",
        "5 readers",
    ):
        assert text in html
    assert not re.search(r"(?:src|href)=\"https?:", html)
    stored = json.loads((tmp_path / "readers.json").read_text())
    assert len(stored["figures"]) == len(pd.read_csv(tmp_path / "readers.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reader,Case ID,rating\nA,1,2\n", "'Case ID' to 'case'"),
        ("reader:case:rating\nA:1:2\n", "commas"),
        ("reader,case\nA,1\n", "'rating' or 'decision'"),
        ("reader,case,rating\nA,1,high\n", r"line 2: rating 'high'"),
        ("reader,case,decision\nA,1,2\n", r"line 2: decision '2'"),
        (
            "reader,case,rating\nA,1,2\nB,1,2\nA,1,3\n",
            "line 4: .*case 1 .*line 2",
        ),
        ("reader,case,rating\nA,,2\n", "line 2: .*reader.*case"),
        ("reader,case,rating\nA,1,\n", "holds no rating"),
    ],
)
def test_damaged_ratings_are_refused_with_their_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_reading_table(write(tmp_path / "ratings.csv", text))


def test_damaged_truth_is_refused(tmp_path):
    path = tmp_path / "truth.csv"
    with pytest.raises(InputError, match="line 3: label '2'"):
        read_truth(write(path, "case,label\n1,0\n2,2\n"))
    with pytest.raises(InputError, match="line 3: case 1"):
        read_truth(write(path, "case,label\n1,0\n1,0\n"))
    with pytest.raises(InputError, match="no such file"):
        read_truth(tmp_path / "nowhere.csv")


def test_unread_rows_are_left_out_and_names_of_this_program_are_known(tmp_path):
    text = "reader,image_id,score\nA,1,0.5\nA,2,\n"
    assert read_reading_table(write(tmp_path / "r.csv", text))["case"].tolist() == ["1"]
    system = read_reading_table(write(tmp_path / "s.csv", "image_id,score\n1,0.5\n"), "AI")
    assert system[["case", "rating"]].values.tolist() == [["1", 0.5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: (t.drop("c000"), r, {}), "case 'c000'"),
        (lambda t, r: (t.assign(label=True), r, {}), "0 patients"),
        (lambda t, r: (t, [*r, r[0]], {}), "appears in two files"),
        (
            lambda t, r: (t, [r[0], r[1].rename(columns={"rating": "decision"})], {}),
            "the files of readings differ",
        ),
        (
            lambda t, r: (t, r, {"AI": r[0].iloc[1:]}),
            "system AI: .*'c000'",
        ),
        (lambda t, r: (t, r, {"m0": r[0]}), "system m0: "),
        (
            lambda t, r: (
                t,
                [each.rename(columns={"rating": "decision"}) for each in r],
                {"AI": r[0]},
            ),
            "system AI: .*decision",
        ),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        join_readings(*change(truth_frame(), crossed(n_readers=1)))


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        (crossed(n_readers=1), {}, "--readers fixed"),
        (crossed(), {"readers": "fixed", "cases": "fixed"}, "both fixed"),
    ],
)
def test_a_study_in_which_nothing_varies_is_refused(tables, options, message):
    with pytest.raises(InputError, match=message):
        analyse_readers(join_readings(truth_frame(), tables, {}), **options)


def test_a_threshold_on_decisions_is_refused():
    with pytest.raises(InputError, match="decisions"):
        join_readings(truth_frame(), crossed(decide=True), {}, positive_from=3)


def test_forms_of_a_blind_study_and_a_system_of_ours_enter_with_their_data_set(
    evaluation_set, predict, tmp_path
):
    system = predict("AI", skill=4.0)
    ids = evaluation_set.image_ids("test", "default")
    truth = evaluation_set.labels(evaluation_set.target()).reindex(ids)
    keys = [f"{number},{name}" for number, name in enumerate(ids, start=1)]
    key = write(tmp_path / "key.csv", "\n".join(["number,image_id", *keys]) + "\n")
    rng = np.random.default_rng(3)
    forms = []
    for reader in ("Ann", "Bo", "Cy"):
        scores = np.clip(0.25 + 0.4 * truth + rng.normal(0, 0.3, len(ids)), 0, 1).round(2)
        rows = [f"{number},{score}," for number, score in enumerate(scores, start=1)]
        path = write(tmp_path / f"{reader}.csv", "\n".join(["number,score,remark", *rows]) + "\n")
        forms.append(f"{reader}={path}")
    out = tmp_path / "out"
    asked = {"out": out, "data": evaluation_set.folder, "key": key}
    stored = command(forms, **asked, system={"AI": system}, positive_from=0.5).to_dict()
    assert stored["answer"].startswith("AI (0.9")
    assert stored["n_cases"] == len(ids)
    assert stored["n_patients"] < len(ids)
    decided = [row for row in stored["figures"] if row["kind"] == "system"]
    assert {row["metric"] for row in decided} >= {"auroc", "recall"}
    with pytest.raises(InputError, match="READER="):
        command(forms[0].split("=")[1], **asked)


def test_a_system_is_not_evaluated_on_images_that_it_was_tuned_on(
    evaluation_set, predict, tmp_path
):
    system = predict("AI")
    ids = evaluation_set.image_ids("val", "default")
    rows = [f"{reader},{name},{len(name) % 5}" for reader in "AB" for name in ids]
    path = write(tmp_path / "r.csv", "\n".join(["reader,case,rating", *rows]) + "\n")
    with pytest.raises(InputError, match="'default'"):
        command(
            [str(path)],
            out=tmp_path / "out",
            data=evaluation_set.folder,
            system=[f"AI={system.folder}"],
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "truth="),
        ({"truth": "t.csv", "system": ["a.csv"]}, "system=.a.csv.: expected NAME=PATH"),
        ({"truth": "t.csv", "system": ["A=a.csv", "A=b.csv"]}, "name"),
        ({"truth": "t.csv", "ratings": "Ann=form.csv"}, "Ann=FILE names who filled in a form"),
    ],
)
def test_what_names_nothing_is_refused_before_any_file_is_read(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        command(**{"ratings": "r.csv", "out": tmp_path} | options)
