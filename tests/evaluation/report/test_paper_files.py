"""Files of a report for a paper."""

import zipfile

from matplotlib.backends.backend_agg import FigureCanvasAgg

from cxr_compare.evaluation.report.data_files import write_data_files
from cxr_compare.evaluation.report.figure_files import draw_confusion
from cxr_compare.evaluation.report.model_card import write_cards
from cxr_compare.evaluation.report.paper_files import write_paper_files
from cxr_compare.evaluation.report.summary_table import summary_table, table_rows


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
        write_cards(comparison, tmp_path / name)
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
    cards = {"cards/RetinaNet.md", "cards/CheXNet.md"}
    expected = {"README.txt", *told, *figures, *cards}
    assert {name.removeprefix("report/") for name in names} == expected
    assert "(cards/*.md)" in readme
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


def test_labels_of_a_confusion_matrix_stay_clear_of_the_matrix_below():
    counts = {"tp": 42, "fn": 3, "fp": 26, "tn": 71}
    rows = [[(f"{name}\nbest F1", counts)] * 3 for name in ("A", "B", "C")]
    figure = draw_confusion(rows)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    above, below = figure.axes[0], figure.axes[3]
    lowest = min(label.get_window_extent(renderer).y0 for label in above.get_xticklabels())
    gap = (lowest - below.title.get_window_extent(renderer).y1) / figure.dpi
    assert gap > 0.15  # inches
