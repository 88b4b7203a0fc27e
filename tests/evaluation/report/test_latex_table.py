"""The summary table as LaTeX."""

import shutil
import subprocess
from dataclasses import replace

import pandas as pd
import pytest

from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.report.latex_table import latex_table
from cxr_compare.evaluation.report.summary_table import summary_table
from cxr_compare.evaluation.system_result import SystemResult


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
    return replace(comparison, systems=systems, figures=Figures.from_table(metrics))


def test_name_with_latex_in_it_stays_a_name(comparison):
    strange = renamed(comparison, "50%_{net} & \\input{x}")
    text = latex_table(strange, summary_table(strange))
    assert r"50\%\_\{net\} \& \textbackslash{}input\{x\}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_table_compiles_with_booktabs_alone(comparison, tmp_path):
    strange = renamed(comparison, "50%_{net} & \\input{x} ≥ −1")
    text = latex_table(strange, summary_table(strange))
    (tmp_path / "table.tex").write_text(text)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        "\\input{table.tex}\nTable~\\ref{tab:opacity}\n\\end{document}\n"
    )
    tex = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(tex, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").exists()


def test_p_value_stands_in_a_column_after_its_difference(comparison):
    tests = pd.DataFrame(
        [("image", "all", "", "auroc", "RetinaNet", "CheXNet", "patients", 0.0123)],
        columns=[
            "unit", "subgroup", "policy", "metric", "first", "second", "independent", "p_value"
        ],
    )  # fmt: skip
    tested = replace(comparison, tests=tests)
    lines = latex_table(tested, summary_table(tested)).splitlines()
    assert r"\begin{tabular}{lrrrr}" in lines
    assert r" & RetinaNet & CheXNet & RetinaNet $-$ CheXNet & $p$ \\" in lines
    (auroc,) = [line for line in lines if line.startswith("AUROC")]
    assert auroc.endswith(r" & 0.012 \\")
    (other,) = [line for line in lines if line.startswith("Average precision")]
    assert other.endswith(r" & -- \\")  # no test is known
