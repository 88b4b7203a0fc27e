"""Commands that other packages add by an entry point, even one that leads nowhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ENTRY_POINTS = """
[cxr_compare.commands]
dose-report = ward.dose:report
moved = ward.moved:moved
renamed = ward.dose:former_name
failing = ward.failing:failing
number = ward.dose:NUMBER
nested = ward_of.city.beds:beds
import = ward.dose:report
"""
_DOSE = '''
from cxr_compare.data_prep.contracts.provenance import present_command
from cxr_compare.scripts.command_frame import command

NUMBER = 1


@command
def report(n_images: int) -> None:
    """Add up the dose of images.

    Args:
        n_images: Number of images.

    Example:
        cxr dose-report 3
    """
    print(present_command(), n_images)
'''
_LEADS_NOWHERE = ("moved", "renamed", "failing", "number")


@pytest.fixture
def with_ward(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the package `ward` is installed, which says its import."""
    files = {
        "ward_tools-1.0.dist-info/METADATA": "Name: ward-tools\nVersion: 1.0\n",
        "ward_tools-1.0.dist-info/entry_points.txt": _ENTRY_POINTS,
        "ward/__init__.py": "print('ward is imported')\n",
        "ward/dose.py": _DOSE,
        "ward_of/city/beds.py": 'def beds():\n    """Count beds."""\n',
        "ward/failing.py": "def failing():\n    '''Fail.'''\n\n\n1 / 0\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def _python(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_a_command_runs_whose_name_has_a_hyphen_and_is_not_its_functions(with_ward):
    done = _python(with_ward, "-m", "cxr_compare.scripts.cli", "dose-report", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "['cxr', 'dose-report', '3'] 3"
    from_python = _python(with_ward, "-c", "import cxr_compare; cxr_compare.dose_report(3)")
    assert from_python.returncode == 0, from_python.stderr


def test_help_describes_added_commands_without_an_import_and_says_which_lead_nowhere(with_ward):
    done = _python(with_ward, "-m", "cxr_compare.scripts.cli", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ward is imported" not in done.stdout
    ward = done.stdout.partition("─ Ward ─")[2].partition("╰")[0]
    lines = dict(
        re.findall(r"^│ ([a-z-]+) +(\S.*?(?=^│ [a-z]|\Z))", ward, re.MULTILINE | re.DOTALL)
    )
    assert lines.keys() == {"dose-report", *_LEADS_NOWHERE}
    assert "Add up the dose of images." in lines["dose-report"]
    assert "ward.moved" in lines["moved"]
    assert "former_name" in lines["renamed"]
    assert "─ Ward of ─" in done.stdout  # namespace packages


@pytest.mark.parametrize("words", [*((name,) for name in _LEADS_NOWHERE), ("moved", "--help")])
def test_a_command_that_cannot_be_loaded_is_one_line(words, with_ward):
    done = _python(with_ward, "-m", "cxr_compare.scripts.cli", *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words[0] in line
    assert "ward-tools" in line


def test_other_commands_and_the_documents_do_not_mind_such_a_command(with_ward):
    code = (
        "from cxr_compare.scripts.cli import build_app\n"
        "from tools import documents\n"
        "build_app()\n"
        "assert 'dose-report' not in documents.reference_page()\n"
        "assert 'dose_report' not in documents.api_page()\n"
    )
    done = _python(with_ward, "-c", code)
    assert done.returncode == 0, done.stderr
