"""A report: its folder, that it is read as it was made, its tables, and what results print."""

import html
import json
import re
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

import cxr_compare
from cxr_compare import InputError, Result, metrics
from tests.adapters import figures, reports
from tests.adapters.folders import reseal
from tests.adapters.sources import in_shell

TABLES = ("figures", "groups", "lesions", "decisions", "curves")
DASH = "–"
PLACES = ["Called, on the lesion", "Called, off it"]
VALUE = re.compile(r"(−?[\d.]+)(?: \((−?[\d.]+) to (−?[\d.]+)\))?")


@pytest.fixture
def without_charts(monkeypatch):
    """For tests that read the words and tables of a page."""
    reports.leave_charts_out(monkeypatch)


@pytest.fixture(scope="module")
def compared(world):
    """A detector, a classifier and both together on images."""
    return Result.open(world.tables_report)


def arrays(**options):
    rng = np.random.default_rng(3)
    label = np.arange(60) % 3 == 0
    scores = {name: np.clip(label * 0.3 + rng.random(60) * 0.6, 0, 1) for name in "AB"}
    return cxr_compare.compare(scores, truth=label.astype(int), replicates=100, **options)


def test_a_report_that_was_not_finished_is_none(world, tmp_path):
    copy = shutil.copytree(world.tables_report, tmp_path / "copy")
    (copy / "answer.json").unlink()
    with pytest.raises(InputError):
        Result.open(copy)


@pytest.mark.usefixtures("without_charts")
def test_another_folder_is_left_alone_and_stale_files_of_a_report_go(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    result = arrays()
    with pytest.raises(InputError):
        result.save(other)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    stale = [tmp_path / "r" / name for name in ("overlays/99.png", "figures/old.svg")]
    for path in stale:
        path.parent.mkdir(parents=True)
        path.touch()
    result.save(tmp_path / "r")
    assert not any(path.exists() for path in stale)
    assert Result.open(tmp_path / "r").headline == result.headline


def test_the_same_comparison_twice_gives_the_same_bytes_and_is_read_as_it_was_made(tmp_path):
    for name in ("one", "two"):
        made = arrays(policy=["threshold=0.5"])
        made.save(tmp_path / name)
    files = [path for path in sorted((tmp_path / "one").rglob("*")) if path.is_file()]
    assert {path.suffix for path in files} >= {".html", ".svg", ".parquet", ".csv", ".md", ".tex"}
    for path in files:
        if path.name != "answer.json":  # which has the date
            again = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == again.read_bytes(), path.name
    opened = Result.open(tmp_path / "two")
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(opened, name), getattr(made, name))
    pd.testing.assert_frame_equal(opened.table, made.table)
    pd.testing.assert_frame_equal(opened.cases(2), made.cases(2))
    written = {"overlays", "files"}
    answers = [each.answer.model_dump(mode="json", exclude=written) for each in (opened, made)]
    assert answers[0] == answers[1]
    lines = [result.plot("roc").axes[0].lines[0].get_xydata() for result in (opened, made)]
    np.testing.assert_array_equal(*lines)


def by_patient(skill, n=120):
    """Scores of one or two systems, labels and patients, each of whom has two images."""
    rng = np.random.default_rng(5)
    label = np.arange(n) // 2 % 3 == 0
    scores = {name: 0.5 * rng.random(n) + label * of for name, of in zip("AB", skill, strict=False)}
    return scores, label.astype(int), np.arange(n) // 2


def compared_boxes(*, ranked):
    """A system of boxes, with or without scores, beside a classifier."""
    scores, label, patients = by_patient((0.4, 0.4), n=720)
    ids = [f"i{number}" for number in range(len(label))]
    truth = pd.DataFrame({"image_id": ids, "label": label, "patient_id": patients})
    truth["role"] = np.where(patients % 2, "val", "test")
    corners = np.random.default_rng(6).integers(0, 300, (2, len(label), 2))
    lesions, boxes = (
        truth[["image_id"]].assign(x1=x1, y1=y1, x2=x1 + 200, y2=y1 + 200)
        for x1, y1 in corners.transpose(0, 2, 1)
    )
    lesions, boxes = lesions[label == 1], boxes[np.arange(len(label)) % 8 < 4]
    if ranked:
        boxes["score"] = scores["A"][boxes.index]
    systems = {"Boxes": boxes, "B": pd.Series(scores["B"], index=ids)}
    call = {"truth": truth.assign(width=512, height=512), "boxes": lesions, "replicates": 100}
    return cxr_compare.compare(systems, policy="threshold=0.5", **call)


def two_detectors(*, groups=False, **options):
    """Tight boxes on half of the lesions beside loose ones on nearly all, with few false boxes."""
    n = 240
    rng = np.random.default_rng(8)
    ids = np.array([f"i{number:03d}" for number in range(n)])
    label = np.arange(n) // 2 % 3 == 0
    truth = pd.DataFrame({"image_id": ids, "label": label.astype(int)})
    truth = truth.assign(patient_id=np.arange(n) // 2, width=512, height=512)
    if groups:
        truth["sex"] = rng.choice(["F", "M"], n)
    lesions = pd.DataFrame({"image_id": ids[label]})
    lesions[["x1", "y1"]] = rng.integers(0, 300, (len(lesions), 2))
    lesions = lesions.assign(x2=lesions["x1"] + 100, y2=lesions["y1"] + 100)
    systems = {}
    for name, share, shift in (("Tight", 0.5, 5), ("Loose", 0.95, 40)):
        found = lesions[rng.random(len(lesions)) < share].copy()
        found[["x1", "x2"]] += shift
        missed = pd.DataFrame({"image_id": ids[~label][rng.random(sum(~label)) < 0.1]})
        false = missed.assign(x1=200, y1=200, x2=300, y2=300)
        boxes = pd.concat([found.assign(score=0.6), false.assign(score=0.4)], ignore_index=True)
        systems[name] = boxes.assign(score=boxes["score"] + 0.3 * rng.random(len(boxes)))
    return cxr_compare.compare(systems, truth=truth, boxes=lesions, replicates=100, **options)


def plain(page):
    """Words of a page without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.read_text())).split())


def test_a_claim_has_the_p_values_of_its_row_in_the_table_of_figures():
    result = two_detectors()
    differences = result.figures[result.figures["second"] != ""]
    pd.testing.assert_frame_equal(result.tests, differences.reset_index(drop=True))
    keys = ["first", "second", "metric", "policy"]
    row_of = differences.set_index(keys)
    claims = [claim for claim in result.answer.claims if claim.metric in ("ap50", "ap")]
    assert len(claims) == 2
    for claim in claims:
        row = row_of.loc[tuple(getattr(claim, key) for key in keys)]
        assert [claim.p_value, claim.p_holm] == [row["p_value"], row["p_holm"]]
    shown = reports.claim_table(result)
    for title, key in (("p", "p_value"), ("p, corrected", "p_holm")):
        expected = [getattr(claim, key) for claim in result.answer.claims]
        assert [cell.value for cell in shown[title]] == expected
    assert any(claim.p_value < claim.p_holm for claim in result.answer.claims)
    of_pair = differences.set_index("metric").loc[["ap50", "ap", "froc_mean"]]
    assert (of_pair.loc[["ap", "froc_mean"], "p_holm"] >= of_pair.loc["ap50", "p_holm"]).all()


def test_claims_are_read_as_they_were_written_and_one_that_lacks_a_part_is_refused(tmp_path):
    answer, path = two_detectors().answer, tmp_path / "answer.json"
    answer.write(path)
    written = [claim.to_dict() for claim in answer.claims]
    assert [claim.to_dict() for claim in type(answer).read(path).claims] == written
    stored = json.loads(path.read_text())
    assert stored["claims"] == written
    del stored["claims"][0]["family"]
    reseal(path, stored)
    with pytest.raises(InputError, match=r"claims\.0\.family: Field required"):
        type(answer).read(path)


def test_a_margin_asks_which_of_two_primary_figures_shall_decide():
    with pytest.raises(InputError, match="AUROC and AP50 are both primary") as refused:
        two_detectors(margin=0.05)
    auroc, ap50 = (way.options for way in refused.value.remedies)
    assert in_shell(ap50) == "--metric ap50"
    assert two_detectors(**auroc, margin=0.05).answer.margin["metric"] == "auroc"
    assert two_detectors(**ap50, margin=0.05, gate=True).exit_status == 1


def of_skill(*skill):
    scores, label, patients = by_patient(skill)
    return cxr_compare.compare(scores, truth=label, patients=patients, replicates=100)


# The comparison, and how many sentences say what was not shown and which boxes have no scores;
# drawn boxes are not shown to lie on lesions.
SAID = {
    "one system": (lambda: of_skill(0.2), 0),
    "shown to differ": (lambda: of_skill(0.4, 0.0), 0),
    "not shown to differ": (lambda: of_skill(0.2, 0.2), 1),
    "no patients, few images": (arrays, 1),
    "boxes with scores": (lambda: compared_boxes(ranked=True), 1),
    "boxes without scores": (lambda: compared_boxes(ranked=False), 2),
}


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize(("make", "n"), SAID.values(), ids=SAID)
def test_what_must_be_said_is_what_the_page_says_with_its_answer(make, n, tmp_path):
    made = make()
    said = made.to_dict()["must_say"]
    assert said == Result.open(made.save(tmp_path / "r").folder).to_dict()["must_say"]
    assert said == cxr_compare.show(tmp_path / "r").to_dict()["must_say"]
    trainings = [text for text in made.answer.notes if text in said]
    assert len(trainings) == 1  # of all systems
    assert len(said) == len(made.cautions) + n + len(trainings)
    text = html.unescape(re.sub(r"<[^>]*>", "", (tmp_path / "r" / "report.html").read_text()))
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    assert [sentence for sentence in said if sentence not in text] == []
    assert said[: len(made.cautions)] == list(made.cautions)


def test_the_first_screen_says_what_calls_an_image_and_counts_lesions_if_all_give_boxes():
    ((_, notes),) = reports.first_screen(compared_boxes(ranked=True))
    assert len(notes) == 1
    ((_, (by_score, by_box)),) = reports.first_screen(compared_boxes(ranked=False))
    assert re.findall(r"\b(?:B|Boxes)\b", f"{by_score} {by_box}") == ["B", "Boxes"]
    detectors = two_detectors(policy="threshold=0.5")
    _, (lesions, _) = reports.first_screen(detectors)
    found = detectors.lesions.query("metric == 'found_iou_50'").set_index("system")["count"]
    assert lesions["Found"].to_dict() == found.to_dict()
    assert (lesions["Found"] + lesions["Not found"]).tolist() == [80, 80]


def test_a_comparison_changes_nothing_in_what_it_compares(world):
    before = {path: path.read_bytes() for path in world.tables.iterdir()}
    truth = world.tables / "truth.csv"
    cxr_compare.compare(world.tables / "a.csv", truth=truth, replicates=100)
    assert before == {path: path.read_bytes() for path in world.tables.iterdir()}


def test_each_cell_of_the_main_table_is_a_figure_and_the_highest_comes_first(compared):
    table, figures = compared.table, compared.figures
    alone = figures[(figures["second"] == "") & figures["policy"].isin(["", "max_f1"])]
    auroc = alone[alone["metric"] == "auroc"].set_index("first")["estimate"]
    highest_first = auroc[compared.systems].sort_values(ascending=False).index.tolist()
    assert table.index.tolist() == compared.ordered == highest_first
    checked = 0
    for name, row in table.iterrows():
        for title, cell in row.items():
            values = alone[alone["first"] == name][["estimate", "ci_low", "ci_high"]].to_numpy()
            shown = VALUE.fullmatch(cell)
            if cell == DASH or title == "Score threshold":
                continue
            numbers = [float(part.replace("−", "-")) for part in shown.groups() if part]
            assert any(
                np.allclose(value[: len(numbers)], numbers, atol=6e-4) for value in values
            ), (name, title)
            checked += 1
    assert checked > 20
    assert table.loc["Scores", "AP50"] == DASH  # unknown, not 0


def test_the_main_table_has_the_figures_at_the_first_of_several_thresholds():
    result = arrays(policy=["threshold=0.4", "threshold=0.7"])
    recalls = result.figures.query("metric == 'recall' and second == ''").pivot(
        index="first", columns="policy", values="estimate"
    )
    assert (recalls["threshold=0.4"] > recalls["threshold=0.7"]).all()
    shown = result.table["Sensitivity (recall)"].str.partition(" ")[0].astype(float)
    assert shown.to_dict() == recalls["threshold=0.4"].round(3).to_dict()


@pytest.mark.parametrize(("patients", "unit"), [(None, "image"), (np.arange(60) // 2, "patient")])
def test_a_method_names_whose_images_stay_together(patients, unit):
    methods = set(arrays(patients=patients).figures["method"]) - {""}
    assert methods
    assert [text for text in methods if re.findall("image|patient", text) != [unit]] == []


def test_together_has_one_row_without_places(compared):
    together = compared.answer.joint
    row = compared.table.loc[together]
    assert row["AUROC"] != DASH
    assert {row["AP50"], row["Localised sensitivity"], row["FROC, mean"]} == {DASH}
    figures = compared.figures
    own = figures[figures[["first", "second"]].eq(together).any(axis=1)]
    of_member = own["note"].str.contains("the boxes of a member")
    assert set(own.loc[of_member, "metric"]) >= {"ap50", "localised_sensitivity", "froc_mean"}
    assert not set(own.loc[of_member, "metric"]) & set(own.loc[~of_member, "metric"])
    assert "auroc" not in set(own.loc[of_member, "metric"])
    assert not figures.drop(own.index)["note"].str.contains("of a member").any()
    families = ("answer", "joint")
    shown = [c for c in reports.shown_claims(compared) if c.family in families]
    assert {shown[0].first, shown[0].second} == {"Scores", "Boxes"}


@pytest.mark.parametrize(
    ("of_a", "of_b", "quoted"),
    [
        ((0.02, 0.003, 0.04, 0.01), (0.12, -0.04, 0.28, 0.2), ["0.120", "−0.040"]),
        ((0.02, -0.003, 0.04, 0.2), (0.12, 0.04, 0.28, 0.01), ["0.020", "−0.003"]),
        ((0.02, 0.003, 0.04, 0.01), (0.12, 0.04, 0.28, 0.01), ["0.020", "0.003"]),
        ((0.02, 0.003, 0.04, 0.08), (0.12, 0.04, 0.28, 0.01), ["0.020", "p = 0.080"]),
    ],
    ids=["not B", "not A", "each", "not A by p alone"],
)
def test_the_line_on_joined_scores_quotes_a_member_that_they_do_not_exceed(
    compared, of_a, of_b, quoted
):
    claim = compared.answer.claims_of("joint")[0]
    claims = []
    for name, (estimate, low, high, p) in (("A", of_a), ("B", of_b)):
        values = {"estimate": estimate, "ci_low": low, "ci_high": high, "p_value": p, "p_holm": p}
        claims.append(replace(claim, first="A + B", second=name, **values))
    answer = compared.answer.with_values(joint="A + B", claims=claims)
    line = answer.both_line(["A", "B"])
    assert [part for part in quoted if part not in line] == []
    assert ("not shown" in line) == ("" in [claim.higher for claim in claims])


def test_errors_and_matrices_are_those_of_a_count(compared):
    made = reports.errors_of(compared)
    decisions = compared.decisions.pivot(
        index="image_id", columns="system", values="decision_max_f1"
    )
    label = compared.decisions.groupby("image_id")["label"].first() >= 1
    for name in compared.systems:
        called = decisions[name].astype(bool)
        (tn, fp), (fn, tp) = confusion_matrix(label, called)
        assert made["confusion"][name] == {"tp": tp, "fn": fn, "fp": fp, "tn": tn}
        if name != compared.answer.joint:
            row = made["outcomes"].loc[name]
            assert row["Not called"] == fn
            assert row[f"False alarms of {tn + fp} negative"] == fp
            assert row[row.index.intersection(["Called", *PLACES])].sum() == tp
            assert all(isinstance(count, int) for count in row.dropna())  # shown as whole numbers
        assert made["corrected"].loc[name, "All errors"] == fn + fp
        for other in set(compared.systems) - {name}:
            both = (called != label) & (decisions[other].astype(bool) == label)
            assert made["corrected"].loc[name, f"{other} right"] == both.sum()
    located = compared.decisions.query("system == 'Boxes' and label == 1 and decision_max_f1")
    right = located["localised"].astype(bool).sum()
    assert made["outcomes"].loc["Boxes", PLACES].tolist() == [right, len(located) - right]


def test_no_p_is_below_the_least_one_that_is_stated_and_less_than_is_plain_text(tmp_path):
    made = two_detectors(policy="threshold=0.5", metric="f1", out=tmp_path / "r")
    (least,) = re.findall(r"resamples is at least (0\.\d+)", plain(made.page))
    assert float(least) == pytest.approx(2 / 101, rel=1e-3)  # 0.0009995 in 2,000, not 0.001
    text = (tmp_path / "r" / "table.md").read_text()
    assert re.search(r"\| <\s0.001 \|", text)
    assert "&" not in text


def test_without_a_threshold_there_are_no_cases():
    with pytest.raises(InputError, match="policy"):
        arrays().cases()


def test_tables_of_a_paper_have_at_most_seven_columns_and_the_texts_of_the_page(compared):
    saved = compared.folder
    latex = (saved / "table.tex").read_text()
    assert latex.startswith("% Packages: ")
    tables = latex.split(r"\begin{table*}")[1:]
    markdown = (saved / "table.md").read_text()
    of_markdown = [each for each in markdown.split("\n\n") if each.startswith("|")]
    assert len(tables) == len(of_markdown) == 2  # systems, and differences
    for text in tables:
        body = [line for line in text.splitlines() if line.endswith(r"\\")]
        (columns,) = {line.replace(r"\&", "").count("&") for line in body}
        assert columns < 7
        assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    for text in of_markdown:
        assert len({line.count(" | ") for line in text.splitlines()}) == 1
    assert len(of_markdown[0].splitlines()) == len(compared.systems) + 2
    for number in re.findall(r"[(−\d][−\d.]* to [−\d.]+\)", markdown):
        ends = number.strip("()").split(" to ")
        assert all(re.fullmatch(r"−?(\d\.\d{3,}|[01])", end) for end in ends)
    assert "image-blind" not in latex + markdown


EDGES = ["x1", "y1", "x2", "y2"]
FOUR = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Sensitivity", "f1": "F1"}


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize("with_boxes", [False, True], ids=["classifiers", "detectors"])
def test_accuracy_precision_recall_and_f1_stand_with_their_differences(with_boxes, tmp_path):
    rng = np.random.default_rng(3)
    ids, label = [f"i{n}" for n in range(90)], np.arange(90) % 3 == 0
    truth = pd.DataFrame({"image_id": ids, "label": label.astype(int)})
    corners = rng.integers(0, 60, (90, 2))
    boxes = pd.DataFrame(np.hstack([corners, corners + 30]), columns=EDGES)
    boxes.insert(0, "image_id", ids)
    scores = {name: np.clip(label * 0.3 + rng.random(90) * 0.6, 0, 1) for name in "AB"}
    systems = {name: boxes.assign(score=of) if with_boxes else of for name, of in scores.items()}
    options = {"boxes": boxes[label]} if with_boxes else {}
    out, policy = tmp_path / "r", "threshold=0.5"
    result = cxr_compare.compare(
        systems, truth=truth, policy=policy, replicates=100, out=out, **options
    )
    rows = result.figures.query("first == 'A' and second == 'B' and policy != ''")
    rows = rows.set_index("metric")
    claims = {claim.metric: claim for claim in result.answer.claims}
    page = (out / "report.html").read_text()
    differences = (out / "table.md").read_text().split("\n\n")[3]
    of_systems, of_pairs = (out / "table.tex").read_text().split(r"\begin{table*}")[1:]
    for metric, title in FOUR.items():
        assert claims[metric].p_holm == rows["p_holm"][metric] >= claims["auroc"].p_holm
        value = f"{abs(rows['estimate'][metric]):.3f}"
        (line,) = [line for line in differences.splitlines() if title in line]
        assert value in line
        assert " to " in line
        assert value in page
        assert value in of_pairs
        assert title in of_systems
    said = " ".join([result.headline, *result.answer.findings, *result.answer.sentences])
    assert not any(title in said for title in FOUR.values())


def test_a_name_with_markup_stays_text_everywhere(tmp_path):
    name = "<b>_x$\\frac$ | 50 % & more"
    label = np.arange(40) % 2
    result = cxr_compare.compare(
        {name: np.linspace(0, 1, 40), "_B$": label * 0.5}, truth=label, replicates=100
    )
    page = result.save(tmp_path / "r").page.read_text()
    assert "<b>_x" not in page
    assert "&lt;b&gt;_x$\\frac$ | 50 % &amp; more" in page
    rows = [
        line for line in (tmp_path / "r" / "table.md").read_text().splitlines() if "50 %" in line
    ]
    assert rows
    assert all(r"\<b>\_x" in row for row in rows)
    assert all(r"\| 50 % & more" in row for row in rows)
    latex = (tmp_path / "r" / "table.tex").read_text()
    assert r"50 \% \& more" in latex
    drawn = (tmp_path / "r" / "figures" / "roc.svg").read_text()
    assert "50 % &amp; more" in drawn  # as text, not as a formula
    assert "_B$: " in drawn  # a label that matplotlib would hide


def test_curves_are_those_of_scikit_learn(compared):
    for name in ("Scores", "Boxes"):
        images = compared.decisions[compared.decisions["system"] == name]
        curves = compared.curves.query("system == @name and kind == 'curve'")
        fpr, tpr, _ = roc_curve(images["label"], images["score"], drop_intermediate=False)
        roc = curves[curves["chart"] == "roc"]
        np.testing.assert_allclose(roc[["x", "y"]], np.stack([fpr, tpr], 1), atol=1e-12)
        precision, recall, _ = precision_recall_curve(images["label"], images["score"])
        pr = curves[curves["chart"] == "pr"].iloc[1:]  # the first point calls nothing
        oracle = np.stack([recall, precision], 1)[-2::-1]
        np.testing.assert_allclose(pr[["x", "y"]], oracle, atol=1e-12)


def test_a_chart_without_content_is_absent_and_an_unknown_one_is_refused_with_the_list(compared):
    assert "froc" in reports.chart_names(compared)
    result = arrays()
    assert not {"froc", "training"} & set(reports.chart_names(result))
    with pytest.raises(InputError, match="roc"):
        result.plot("rok")
    names = [text.get_text() for text in result.plot("roc").legends[0].get_texts()]
    assert sum(name.startswith(("A", "B")) for name in names) == 2


def test_no_patient_and_no_folder_is_named_in_a_report(tmp_path):
    """Names of patients, and the folder they came from; one image has no file."""
    ids = [f"SMITH_{n:02d}" for n in range(30)]
    folder = tmp_path / "hidden-folder"
    folder.mkdir()
    for name in ids[1:]:
        Image.fromarray(np.full((64, 64), 90, np.uint8)).save(folder / f"{name}.png")
    positive = np.arange(30) % 3 == 0
    truth = pd.DataFrame({"image_id": ids, "label": positive.astype(int)})
    truth["patient_id"] = [f"JONES_{n // 2}" for n in range(30)]
    box = pd.DataFrame({"image_id": truth.loc[positive, "image_id"]})
    box = box.assign(x1=5.0, y1=5.0, x2=30.0, y2=30.0)
    rng = np.random.default_rng(0)
    found = box.assign(score=rng.random(len(box)), x1=8.0)
    found.iloc[0, found.columns.get_loc("image_id")] += ".png"  # reading names this image
    found = pd.concat([found, found.iloc[3:4].assign(x2=8.0)])  # and this one, without width
    scores = pd.DataFrame({"image_id": ids, "score": rng.random(30) / 2 + positive / 3})
    for name, table in (("truth", truth), ("true", box), ("a", found), ("b", scores)):
        table.to_csv(folder / f"{name}.csv", index=False)
    call = {"truth": folder / "truth.csv", "boxes": folder / "true.csv", "images": str(folder)}
    call |= {"policy": ["threshold=0.5"], "replicates": 100}
    systems = {"A": folder / "a.csv", "B": folder / "b.csv"}
    out = tmp_path / "report"
    result = cxr_compare.compare(systems, **call, out=out)
    texts = [out / "report.html", out / "answer.json", *out.glob("figures/*.svg")]
    texts += [out / "overlays/index.html"]
    text = str(result) + "".join(path.read_text() for path in texts)
    assert not any(name in text for name in ("JONES_", "hidden-folder"))
    for path in out.rglob("*"):
        if path.is_file():
            table = pd.read_parquet(path).to_csv() if path.suffix == ".parquet" else ""
            assert "hidden-folder" not in table + path.read_bytes().decode("utf-8", "replace")
    shown = next(iter(result.answer.overlays))
    assert result.overlay(shown).width > 300
    assert len(list((out / "overlays").glob("*.png"))) == len(result.answer.overlays)
    plain = cxr_compare.compare(systems, **call)
    with pytest.raises(InputError, match="SMITH_00"):
        plain.overlay("SMITH_00")  # whose file is gone


def froc() -> Any:
    true = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
    detections = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
    return metrics.froc(boxes=detections, truth=true, image_ids=["a", "b"])


def test_a_comparison_prints_its_answer_and_its_table_and_a_notebook_shows_both(compared):
    lines = str(compared).splitlines()
    assert compared.headline.startswith(f"{lines[0]} ")  # it goes on on both together
    assert compared.answer.joint not in lines[0]
    assert "oined" in lines[1]
    assert str(compared.page) in lines[-1]
    assert all(any(caution in line for line in lines) for caution in compared.cautions)
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in compared.systems)
    assert all(name in repr(compared) for name in compared.systems)
    assert "<table" in compared._repr_html_()
    assert compared.plot("roc")._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("label", [0, 1])
def test_a_report_on_images_of_one_class_is_written(label, tmp_path):
    options = {"truth": np.full(40, label), "policy": "threshold=0.5", "replicates": 100}
    made = cxr_compare.compare({"A": np.linspace(0, 1, 40)}, **options)
    assert plain(made.save(tmp_path / "r").page).count("False alarms of 40 negative") == 1 - label


def trained(**training):
    config = {"name": "N", "training": {"seed": 1, **training}, "model": {"weights": "none"}}
    return {"recipe": figures.recipe(config)}


def test_settings_of_trainings_are_shown_where_they_differ():
    records = {"A": trained(epochs=3), "B": trained(epochs=3), "C": {}}
    assert reports.training_settings(records) == {}
    assert reports.training_settings({"C": {}}) == {}
    records["B"] = trained(epochs=4)
    records["B"]["recipe"]["config"]["own"] = {"new_setting": None, "sides": [1, 2]}
    assert reports.training_settings(records) == {
        "training.epochs": {"A": "3", "B": "4"},
        "own.sides": {"A": "", "B": "[1, 2]"},
    }


def test_the_page_has_the_settings_in_which_two_trainings_differ(world):
    text = (world.report / "report.html").read_text()
    table = text[text.index("Settings in which the trainings differ") :].split("</table>")[0]
    assert "RetinaNet" in table
    assert "CheXNet" in table
    assert "model.nms_iou" in table  # of a detector alone
    assert "data.image_size" not in table  # 96 px in both
