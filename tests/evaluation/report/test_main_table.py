"""Main table of a comparison: as a DataFrame, on the page, in LaTeX and in Markdown."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.report.metric_table import figure_frame
from cxr_compare.evaluation.report.paper_tables import latex_table, markdown_table
from cxr_compare.evaluation.report.summary_table import (
    TableRow,
    main_table,
    summary_frame,
    summary_keys,
    table_rows,
)
from cxr_compare.evaluation.report.table import html_table, notes_text, text_table
from cxr_compare.evaluation.statistics.figure_text import p_equation
from cxr_compare.evaluation.system_result import SystemResult
from tests.compared import compare_predictions

PAIR = "RetinaNet − CheXNet"
BOTH = {"Accuracy", "Precision", "Sensitivity (recall)", "Specificity", "F1", "AUROC"}


def renamed(comparison, name):
    """The comparison with another name for RetinaNet."""
    metrics = comparison.metrics.replace({"first": {"RetinaNet": name}})
    systems = {name: SystemResult(), "CheXNet": SystemResult()}
    return replace(comparison, systems=systems, figures=Figures.from_table(metrics))


@pytest.fixture(scope="module")
def nine():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 60)
    scores = {f"M{n}": 1 / (1 + np.exp(-rng.normal(label * (1 + n / 4) - 1))) for n in range(9)}
    return cxr_compare.compare(scores, truth=label, policy=["threshold=0.5"], replicates=100)


def test_figures_are_rows_below_the_rule_of_their_threshold(comparison):
    frame = summary_frame(comparison)
    assert list(frame.columns) == ["RetinaNet", "CheXNet", PAIR]
    assert set(frame.xs("Without a threshold").index) == {
        "AUROC",
        "Average precision",
        "AP50 of the decided boxes",
    }
    assert BOTH - {"AUROC"} <= set(frame.xs("At the threshold for best F1").index)
    assert frame.xs("AUROC", level=1)["RetinaNet"].item() == "0.891 (0.851 to 0.921)"


def test_threshold_stands_above_the_figures_that_need_it(comparison):
    rows = list(main_table(comparison).frame.index)
    at = rows.index("Score threshold for best F1")
    assert set(rows[:at]) == {"AUROC", "Average precision", "AP50 of the decided boxes"}
    assert set(rows[at + 1 :]) >= BOTH - {"AUROC"}
    assert main_table(comparison).frame.iloc[at]["CheXNet"].startswith("0.500")


def test_difference_has_the_p_value_of_its_own_test_not_adjusted(test_set, predict):
    systems = {
        name: predict(name, seed=seed, skill=skill)
        for name, seed, skill in (("A", 1, 0.5), ("B", 2, 2.5), ("C", 3, 1.0))
    }
    three = compare_predictions(systems, test_set, replicates=100)
    tests = three.tests.query("metric == 'auroc' and subgroup == 'all' and first == 'A'")
    tests = tests[tests["method"].str.startswith("Obuchowski")].set_index("second")
    frame = figure_frame(three, summary_keys(three))
    auroc = frame.xs("AUROC", level=1).iloc[0]
    for name in ("B", "C"):
        assert auroc[f"A − {name}"].endswith(f"; {p_equation(tests.loc[name, 'p_value'])}")


def test_only_what_the_answer_shows_is_marked_as_shown(nine):
    comparison = nine.compared.comparison
    frame = main_table(comparison).frame
    (differences,) = [frame[column] for column in frame if "highest minus this" in column]
    best = comparison.figures.systems
    best = max(best, key=lambda name: comparison.figures.get(name, "auroc").estimate)
    assert differences[best] == ""
    for name, text in differences.drop(best).items():
        decided = [
            comparison.answer.decides(*pair, "auroc", "") for pair in ((best, name), (name, best))
        ]
        assert text[0] == ("●" if any(decided) else "○")
    assert {text[:1] for text in differences} == {"●", "○", ""}


def test_a_difference_that_the_answer_does_not_test_has_no_sign(nine):
    comparison = nine.compared.comparison
    frame = figure_frame(comparison, summary_keys(comparison))
    differences = frame.droplevel(0)["M0 − M8"]
    assert differences["AUROC"][0] in "●○"
    assert differences["Accuracy"].lstrip("−")[0].isdigit()  # at a declared threshold


def test_three_systems_and_more_are_rows_with_the_figures_of_the_other_layout(nine):
    comparison = nine.compared.comparison
    rows = main_table(comparison).frame
    columns = figure_frame(comparison, summary_keys(comparison)).droplevel(0)
    assert list(rows.index) == [f"M{n}" for n in range(9)]
    assert nine.table.equals(rows)
    assert nine._repr_html_().count("<tr") == 10
    assert "| M8 |" in markdown_table(comparison, main_table(comparison))
    for metric in (*BOTH, "Average precision"):
        assert rows[metric].tolist() == columns.loc[metric, rows.index].tolist()


def test_without_a_threshold_table_and_cases_say_so_and_pictures_ask_for_images():
    truth, scores = [0, 0, 1, 1, 0, 1], {"A": [0.1, 0.2, 0.8, 0.7, 0.6, 0.9]}
    result = cxr_compare.compare(scores, truth=truth, replicates=100)
    assert [title for _, title in result.table.index] == ["AUROC", "Average precision"]
    assert "threshold" in main_table(result.compared.comparison).lead
    with pytest.raises(InputError, match="threshold"):
        result.cases()
    with pytest.raises(InputError, match="images="):
        result.overlay(result.decisions["image_id"].iloc[0])
    at_half = cxr_compare.compare(scores, truth=truth, replicates=100, policy=["threshold=0.5"])
    accuracy = at_half.table.xs("Accuracy", level=1)["A"].iloc[0]
    assert accuracy.startswith("0.833")  # one of six is wrong
    assert at_half.cases()["image_id"].is_unique


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("presicion", "did you mean 'precision'"),
        ("auroc@max_f1", "'auroc' has no threshold"),
        ("recall@best", "unknown policy 'best'"),
    ],
)
def test_row_that_cannot_be_is_refused_with_what_to_write(wanted, says):
    with pytest.raises(InputError, match=says):
        table_rows([wanted])


def test_rows_that_were_asked_for_stand_in_their_order_and_one_without_a_figure_is_a_dash(
    comparison,
):
    rows = [*table_rows(["f1", " recall", "auroc", "f1"]), TableRow("recall", "youden")]
    frame = summary_frame(comparison, rows)
    figures = frame.drop("Size and time", level=0)
    titles = [title for _, title in figures.index]
    assert titles == ["F1", "Sensitivity (recall)", "AUROC", "Sensitivity (recall)"]
    assert set(figures.iloc[-1]) == {"–"}


def test_reason_stands_once_with_the_figures_that_it_belongs_to(comparison):
    for name in comparison.names:
        figures = comparison.figures.rows[name, ""]
        for count, (key, figure) in enumerate(figures.items()):
            note = f"undefined in {count + 1} of 2000 resamples, left out"
            figures[key] = replace(figure, note=note)
    note = main_table(comparison).note
    assert note.count("undefined in") == 1
    assert "AUROC (RetinaNet, CheXNet)" in note
    notes = [("F1", "A", "x"), ("F1", "B", "y"), ("AUROC", "A", "x"), ("AUROC", "B", "")]
    assert notes_text(notes) == "F1 (A), AUROC (A): x. F1 (B): y."


def test_page_carries_the_key_of_each_system_and_names_each_cell_for_narrow_screens():
    table = text_table("", ("Figure", "A<b>", "Images"), [("F1", "0.5 (0.4 to 0.6)", "a & b")])
    html = html_table(table, ["A<b>"])
    assert '<i class="key s0"></i>A&lt;b&gt;' in html
    assert re.findall('data-name="(.*?)"', html) == ["A&lt;b&gt;", "Images"]
    assert "<b>0.5</b> <small>(0.4 to 0.6)</small>" in html
    assert "a &amp; b" in html
    long = "x" * 300
    assert long in html_table(text_table("", ("", "A"), [("F1", long)]))


def test_latex_table_is_booktabs_with_equal_columns(comparison):
    text = latex_table(comparison, main_table(comparison))
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {3}
    assert r"AUROC & 0.891 (0.851 to 0.921) & 0.862 (0.812 to 0.902) & $\circ$ 0.029" in text
    assert text.count("{") == text.count("}")
    strange = renamed(comparison, "50%_{net} & \\input{x}")
    text = latex_table(strange, main_table(strange))
    assert r"50\%\_\{net\} \& \textbackslash{}input\{x\}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_table_compiles_with_booktabs_alone(comparison, tmp_path):
    strange = renamed(comparison, "50%_{net} & \\input{x} ≥ −1")
    (tmp_path / "table.tex").write_text(latex_table(strange, main_table(strange)))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        "\\input{table.tex}\nTable~\\ref{tab:opacity}\n\\end{document}\n"
    )
    tex = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(tex, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").exists()


def test_markdown_table_holds_the_answer_the_figures_and_escaped_names(comparison):
    warned = replace(comparison, notes=[Note("few_patients", "Only six patients are positive.")])
    lines = markdown_table(warned, main_table(warned)).splitlines()
    assert lines[0].endswith(warned.answer.headline)
    assert "- Only six patients are positive." in lines
    auroc = next(line for line in lines if line.startswith("| AUROC"))
    assert "0.891 (0.851 to 0.921)" in auroc
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")}
    assert widths == {5}
    strange = renamed(comparison, "a|b")
    assert r"| a\|b |" in markdown_table(strange, main_table(strange))
