"""Temporary files go with their process, and those of a killed process with the next."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_temporary_files_of_a_killed_process_are_removed_by_the_next(tmp_path):
    program = (
        "import multiprocessing.util, os;"
        "from cxr_compare.data_prep.contracts import temporary_folders;"
        "temporary_folders.use_private_temporary_folder();"
        "print(multiprocessing.util.get_temp_dir());"
    )

    def temporary_folder_of_process(ending: str) -> Path:
        result = subprocess.run(
            [sys.executable, "-c", program + ending],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        return Path(result.stdout.strip())

    killed = temporary_folder_of_process("import sys; sys.stdout.flush(); os.kill(os.getpid(), 9)")
    assert killed.parent.parent == tmp_path
    assert killed.is_dir()
    assert not temporary_folder_of_process("").exists()
    assert list(tmp_path.iterdir()) == []
