"""What must start at once does not import what takes long to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLI = "from cxr_compare.scripts.cli import main; sys.argv = 'cxr {}'.split(); main()"
IN_HELP = "torch pandas sklearn matplotlib numpy scipy"
COMMANDS = "import cxr_compare; [getattr(cxr_compare, name) for name in cxr_compare.__all__]"


@pytest.mark.parametrize(
    ("code", "heavy", "message"),
    [
        (CLI.format("--help"), IN_HELP + " pydantic", "compare"),
        (CLI.format("predict --help"), "torch sklearn matplotlib", "--policy"),
        (CLI.format("show ."), "torch sqlite3", "data set"),
        (COMMANDS, "torch sklearn matplotlib", ""),
        # A table of labels needs no reader of images.
        ("import cxr_compare.data_prep.sources.registry", "torch pydicom", ""),
        # Prediction with an export needs nothing that compares systems.
        ("import cxr_compare.serving.answer_files", "torch pydicom scipy.special matplotlib", ""),
        # Worker processes start with it; albumentations would cost 1.7 s each.
        ("import cxr_compare.data_prep.pixels", "albumentations torch", ""),
    ],
    ids=[
        "help",
        "help of a command",
        "show",
        "commands",
        "sources",
        "predict",
        "decode",
    ],
)
def test_it_imports_nothing_heavy(code, heavy, message, tmp_path):
    for name in ("run/run.json", "run/config.toml", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    at_exit = f"print('LOADED', sorted({set(heavy.split())} & set(sys.modules)))"
    program = f"import atexit, sys; atexit.register(lambda: {at_exit}); {code}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "LOADED []" in done.stdout, done.stderr
    assert message in done.stdout + done.stderr
