"""Worker processes start without the caller's script and without the user's folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cxr_compare.data_prep.parallel import map_images

ROOT = Path(__file__).resolve().parents[3]


def test_folder_with_the_name_of_a_module_ends_no_worker(tmp_path):
    (tmp_path / "pydicom").mkdir()
    (tmp_path / "pydicom" / "__init__.py").write_text("raise SystemExit('the wrong pydicom')")
    code = (
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"  # as an installed command: not this folder
        "from cxr_compare.data_prep.parallel import map_images\n"
        "print(list(map_images(abs, [-2, -1], 2, on_crash=lambda row: None)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "[2, 1]\n"), result.stderr


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_script_without_a_main_guard_is_run_once_and_not_by_its_workers(tmp_path, method):
    script = tmp_path / "analysis.py"
    script.write_text(
        "print('started', flush=True)\n"
        "import multiprocessing\n"
        f"multiprocessing.get_all_start_methods = lambda: [{method!r}]\n"
        "from cxr_compare.data_prep.parallel import map_images\n"
        "print(list(map_images(abs, [-2, -1], 2, on_crash=lambda row: None)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stdout == "started\n[2, 1]\n", result.stderr


def test_main_module_is_restored_after_workers_have_started():
    main = sys.modules["__main__"]
    assert list(map_images(abs, [-1], 2, on_crash=int)) == [1]
    assert sys.modules["__main__"] is main
