import json
import re
import shutil
import subprocess
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.estimates import Estimates
from cxr_compare.evaluation.compare.system_result import SystemResult
from cxr_compare.evaluation.report.data_files import write_data_files
from cxr_compare.evaluation.report.latex_table import latex_table
from cxr_compare.evaluation.report.markdown_table import markdown_table
from cxr_compare.evaluation.report.metric_table import every_pair_table
from cxr_compare.evaluation.report.paper_files import write_paper_files
from cxr_compare.evaluation.report.summary_table import TableRow, summary_table, table_rows
from cxr_compare.evaluation.statistics.figure_text import p_value_text
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "metrics.schema.json"


def problems(content):
    schema = json.loads(SCHEMA.read_text())
    return [error.message for error in Draft202012Validator(schema).iter_errors(content)]


@pytest.fixture
def written(test_set, predict, tmp_path):
    """A real comparison's metrics.json: a detector and a classifier with maps."""

    systems = {"Detector": predict("det", "boxes"), "Classifier": predict("cls", maps=True)}
    comparison = compare_predictions(systems, test_set, replicates=20)
    write_data_files(comparison, tmp_path / "report")
    return json.loads((tmp_path / "report" / "metrics.json").read_text())


def test_metrics_json_keeps_to_its_published_schema(written):
    assert problems(written) == []


def test_schema_refuses_what_it_should(written):
    for what, spoil in {
        "key gone": lambda content: content.pop("target"),
        "figure as text": lambda content: content["metrics"][0].update(estimate="0.9"),
        "negative count": lambda content: content["metrics"][0].update(n_images=-1),
        "threshold without policy": lambda content: content["thresholds"].update(Detector=0.5),
        "other file": lambda content: content.update(contract="other"),
        "unknown metric": lambda content: content["metrics"][0].update(metric="informedness"),
    }.items():
        spoilt = deepcopy(written)
        spoil(spoilt)
        assert problems(spoilt), what


def test_latex_table_is_booktabs_with_equal_columns(comparison):
    text = latex_table(comparison, summary_table(comparison))
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert {line.count(" & ") for line in rows} == {3}
    assert r"AUROC & 0.891 (0.851 to 0.921) & 0.862 (0.812 to 0.902) & 0.029" in text
    assert text.count("{") == text.count("}")


def renamed(comparison, name):
    """The comparison with another name for RetinaNet."""
    metrics = comparison.metrics.replace({"system": {"RetinaNet": name}})
    systems = {name: SystemResult(), "CheXNet": SystemResult()}
    return replace(comparison, systems=systems, estimates=Estimates.from_table(metrics))


def test_name_with_latex_in_it_stays_a_name(comparison):
    strange = renamed(comparison, "50%_{net} & \\input{x}")
    text = latex_table(strange, summary_table(strange))
    assert r"50\%\_\{net\} \& \textbackslash{}input\{x\}" in text


def test_markdown_table_holds_the_figures_and_the_verdict(comparison):
    lines = markdown_table(comparison, summary_table(comparison)).splitlines()
    assert lines[0].endswith(comparison.answer.headline)
    auroc = next(line for line in lines if line.startswith("| AUROC"))
    assert "0.891 (0.851 to 0.921)" in auroc
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")}
    assert widths == {5}


def test_pipe_in_a_name_breaks_no_markdown(comparison):
    strange = renamed(comparison, "a|b")
    assert r"| a\|b |" in markdown_table(strange, summary_table(strange))


def write_files(comparison, out, rows=()):
    told = {"checklists": [], "references": [], "comparison": comparison}
    write_paper_files(comparison, out, rows, told)


def test_archive_names_each_file_and_equal_folders_give_equal_bytes(comparison, tmp_path):
    comparison.decisions["probability"] = float("nan")
    for name in ("a", "b"):
        (tmp_path / name / "figures").mkdir(parents=True)
        write_files(comparison, tmp_path / name)
        for figure in ("roc", "forest"):
            (tmp_path / name / "figures" / f"{figure}.png").write_bytes(b"drawn")
            (tmp_path / name / "figures" / f"{figure}.txt").write_text(f"About {figure}.\n")
        write_data_files(comparison, tmp_path / name)
    first, second = (tmp_path / name / "report.zip" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        readme = archive.read("report/README.txt").decode()
    told = {
        "table.tex",
        "table.md",
        "metrics.csv",
        "tests.csv",
        "where.csv",
        "costs.csv",
        "checklists.md",
        "references.bib",
    }
    figures = {f"figures/{name}.{kind}" for name in ("roc", "forest") for kind in ("png", "txt")}
    assert {name.removeprefix("report/") for name in names} == {"README.txt", *told, *figures}
    assert all(f"({name})" in readme for name in told)
    assert readme.endswith(
        "Figure 1 (figures/forest.*): About forest.\nFigure 2 (figures/roc.*): About roc.\n"
    )


def test_both_files_hold_accuracy_precision_recall_f1_and_auroc_unasked(comparison, tmp_path):
    write_files(comparison, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"table.tex", "table.md"}
    wanted = {"Accuracy", "Precision", "Sensitivity (recall)", "F1", "AUROC"}
    assert wanted <= set(rows_of((tmp_path / "table.tex").read_text()))
    assert all(f"| {row} | 0." in (tmp_path / "table.md").read_text() for row in wanted)
    on_page = {row[0] for row in summary_table(comparison).rows}
    assert wanted - on_page == {"Accuracy", "Precision"}


def rows_of(text):
    return [line.split(" & ")[0] for line in text.splitlines() if " & 0." in line]


def test_table_holds_the_rows_that_were_asked_for_in_their_order(comparison, tmp_path):
    write_files(comparison, tmp_path, table_rows(["f1", " recall", "auroc", "f1"]))
    text = (tmp_path / "table.tex").read_text()
    assert rows_of(text) == ["F1", "Sensitivity (recall)", "AUROC"]


def test_table_without_a_choice_has_the_summary_rows_that_a_system_has(comparison):
    (whole, at) = summary_table(comparison).groups
    assert [row[0] for row in whole.rows] == ["AUROC", "Average precision"]
    assert {"Sensitivity (recall)", "Specificity"} <= {row[0] for row in at.rows}


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


def test_row_at_a_policy_without_a_figure_stays_and_is_a_dash(comparison):
    table = summary_table(comparison, [TableRow("recall", "youden")])
    assert {cell.text for cell in table.groups[0].rows[0][1:]} == {"–"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_table_compiles_with_booktabs_alone(comparison, tmp_path):
    write_paper_files(renamed(comparison, "50%_{net} & \\input{x} ≥ −1"), tmp_path)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        "\\input{table.tex}\nTable~\\ref{tab:opacity}\n\\end{document}\n"
    )
    tex = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(tex, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").exists()


@pytest.fixture
def three(test_set, predict):
    systems = {
        name: predict(name, seed=seed, skill=skill)
        for name, seed, skill in (("A", 1, 0.5), ("B", 2, 2.5), ("C", 3, 1.0))
    }
    return compare_predictions(systems, test_set, replicates=100)


def test_two_systems_have_no_table_of_pairs(comparison):
    assert every_pair_table(comparison) is None  # the main table has their difference


def test_every_pair_stands_with_holm_over_all_pairs(three):
    grid = every_pair_table(three)
    auroc = {row[1]: row for row in grid.rows if row[0] == "AUROC"}
    assert list(auroc) == ["A − B", "A − C", "B − C"]
    assert "over the 3 pairs" in grid.lead
    own = three.tests.query(
        "first == 'B' and second == 'C' and metric == 'auroc' and subgroup == 'all'"
    )
    expected = own.loc[own["method"].str.startswith("Obuchowski"), "p_holm_pairs"].item()
    assert auroc["B − C"][3] == p_value_text(expected)
