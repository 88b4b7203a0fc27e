"""The figures of a paper: PNG, PDF and SVG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from cxr_compare.evaluation.report.chart_drawing import (
    WRITING_SVG,
)

_DPI = 200  # resolution of PNG files


_PLATE_INCHES = 17 / 2.54


_PLATE_DPI = 300  # smallest resolution of the plate of cases


_UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a matplotlib figure as PNG, PDF and SVG files.

    The files contain no date, so that equal figures give equal files.

    Args:
        figure: The figure to write.
        path: Path whose suffix is replaced by ``.png``, ``.pdf`` and ``.svg``.

    Returns:
        Paths of the PNG, PDF and SVG files.
    """
    written = []
    box = _edges(figure)
    with WRITING_SVG, mpl.rc_context({"svg.hashsalt": "figure", "pdf.fonttype": 42}):
        for kind, undated in _UNDATED.items():
            to = path.with_suffix(f".{kind}")
            figure.savefig(
                to, format=kind, dpi=_DPI, facecolor="white", bbox_inches=box, metadata=undated
            )
            written.append(to)
    return written


def _edges(figure: Figure) -> Bbox:
    """Lay a figure out and return its tight bounding box with a margin, in inches.

    With ``bbox_inches="tight"`` matplotlib would do both again for each file.
    """
    figure.set_dpi(_DPI)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    margin: float = mpl.rcParams["savefig.pad_inches"]
    return figure.get_tightbbox().padded(margin)
