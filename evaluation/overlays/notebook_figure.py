"""A figure of matplotlib that a notebook shows without `pyplot`."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that a notebook shows as PNG at the end of a cell.

    Jupyter itself draws figures only after `matplotlib.pyplot` was imported.
    """

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=110, bbox_inches="tight")
        return drawn.getvalue()
