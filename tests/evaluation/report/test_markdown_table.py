"""The summary table as Markdown."""

import re
from dataclasses import replace

from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.report.markdown_table import markdown_table
from cxr_compare.evaluation.report.summary_table import summary_table
from cxr_compare.evaluation.system_result import SystemResult


def renamed(comparison, name):
    """The comparison with another name for RetinaNet."""
    metrics = comparison.metrics.replace({"system": {"RetinaNet": name}})
    systems = {name: SystemResult(), "CheXNet": SystemResult()}
    return replace(comparison, systems=systems, figures=Figures.from_table(metrics))


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
