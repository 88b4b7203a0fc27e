"""Figures of a report for a paper."""

from matplotlib.backends.backend_agg import FigureCanvasAgg

from cxr_compare.evaluation.report.figure_files import draw_confusion


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
