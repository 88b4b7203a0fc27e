"""The notebooks of docs/: each runs, and shows what its committed pages show."""

import re
import socket
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
# The tour takes minutes: tests/test_end_to_end.py runs it on small data.
SHORT = [path for path in NOTEBOOKS if path.stem != "tour"]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds_of_output(cell):
    """Return what a cell shows: ``stream``, or the richest form of an object."""
    forms = ("text/html", "image/png", "text/plain")
    return [
        next(form for form in forms if form in output.data) if "data" in output else output.name
        for output in cell.outputs
    ]


@pytest.mark.parametrize("path", SHORT, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_its_committed_pages_show(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    shown = [kinds_of_output(cell) for cell in code_cells(notebook)]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [kinds_of_output(cell) for cell in code_cells(notebook)] == shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_was_run_in_order_and_names_no_machine(path):
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [kind for cell in cells for kind in kinds_of_output(cell)]
    assert "image/png" in kinds
    assert "stderr" not in kinds
    for output in (output for cell in cells for output in cell.outputs if "data" in output):
        output.data.pop("image/png", None)
    text = nbformat.writes(notebook)
    assert re.findall(r"/(?:tmp|home|root|work|Users|usr|opt)/\S*", text) == []
    assert socket.gethostname() not in text
