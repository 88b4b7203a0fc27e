"""A figure of matplotlib that a notebook shows without `pyplot`."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A matplotlib figure that Jupyter shows as PNG when it is the last value of a cell.

    Jupyter shows an ordinary figure in this way only after `matplotlib.pyplot` was imported.
    """

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=110, bbox_inches="tight")
        return drawn.getvalue()
