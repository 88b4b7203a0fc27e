"""A figure of matplotlib that a notebook shows without `pyplot`."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

SAVED: Any = {"pdf.fonttype": 42, "svg.fonttype": "none"}
"""Settings of matplotlib for files: a PDF embeds TrueType fonts, and the text of an SVG is text."""


class NotebookFigure(Figure):
    """A matplotlib figure that Jupyter shows as PNG when it is the last value of a cell.

    Jupyter shows an ordinary figure in this way only after `matplotlib.pyplot` was imported.
    """

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Save the figure with the settings `SAVED`."""
        salt = mpl.rcParams["svg.hashsalt"] or "chart"  # so that the ids of an SVG do not change
        with mpl.rc_context({**SAVED, "svg.hashsalt": salt}):
            super().savefig(*arguments, **options)

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=110, bbox_inches="tight")
        return drawn.getvalue()
