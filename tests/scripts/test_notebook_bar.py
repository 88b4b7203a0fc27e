"""Progress in a notebook: one bar in the output of the cell, which is updated in place."""

import re
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from cxr_compare.scripts.console import NotebookBar, in_notebook

CELLS = (
    "import cxr_compare\ncxr_compare.synth('x', images=12, size=64, seed=1, progress=True)",
    "cxr_compare.prepare('x', 'data', format='rsna', workers=0)",
    "from cxr_compare.scripts import console\n"
    "with console.track('Reading', None) as advance:\n    advance()\n    advance(2)",
    "with console.silent(), console.track('Reading', 3) as advance:\n    advance()",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    folder = tmp_path_factory.mktemp("notebook")
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}).execute()
    assert isinstance(notebook, nbformat.NotebookNode)
    return [cell.outputs for cell in notebook.cells]


def test_a_command_with_progress_shows_a_full_bar_and_then_its_result(outputs):
    bar, result = outputs[0]
    value, most = re.findall(r'<progress value="(\d+)" max="(\d+)">', bar.data["text/html"])[0]
    assert value == most
    assert int(value) >= 12
    assert f"{value} of {most}" in bar.data["text/plain"]
    assert result.output_type == "execute_result"
    assert "12 images" in result.data["text/html"]


def test_without_progress_a_command_shows_its_text_alone(outputs):
    (result,) = outputs[1]
    assert result.output_type == "execute_result"
    assert "target opacity" in result.data["text/html"]


def test_a_bar_without_a_total_is_full_at_the_end(outputs):
    (bar,) = outputs[2]
    assert '<progress value="3" max="3">' in bar.data["text/html"]


def test_nothing_is_shown_in_silence(outputs):
    assert outputs[3] == []


def test_a_bar_escapes_its_text_and_is_not_used_outside_of_notebooks():
    assert not in_notebook()
    bar = NotebookBar("a < b", None)
    assert bar._repr_html_() == "<progress></progress> a &lt; b: 0"
    bar.advance(1, "about 20 seconds left")  # before it is shown nothing is sent
    assert repr(bar) == "a < b: 1, about 20 seconds left"
