"""The attack by kills finds what a killed command loses, and ends a command that hangs."""

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tools.attacks import kills, material
from tools.attacks.forked import adopt_orphans, call_in_new_process

pytestmark = pytest.mark.release  # as the attack itself

# Writes ten files, one after another. Those that exist may be left.
_TEN_FILES = """
import sys, time
from pathlib import Path
out = Path(sys.argv[1])
out.mkdir(exist_ok=True)
for number in range(10):
    path = out / str(number)
    if {skip}:
        continue
    {begin}
    time.sleep(0.05)
    {end}
"""
_RESUMES = _TEN_FILES.format(
    skip="path.exists()",
    begin="part = out / 'part'; part.write_text('')",
    end="part.write_text('whole'); part.rename(path)",
)
_LEAVES_HALF_FILES = _TEN_FILES.format(
    skip="path.exists()", begin="path.write_text('half')", end="path.write_text('whole')"
)


@pytest.fixture
def attack(tmp_path, monkeypatch):
    """Attack a program, given as text, in place of a command."""

    def attack(program: str) -> list[str]:
        script = tmp_path / "program.py"
        script.write_text(textwrap.dedent(program))
        command = [sys.executable, str(script), str(tmp_path / "disk" / "out")]
        monkeypatch.setattr(material, "cxr_command", lambda *words: command)
        draw = random.Random(2)  # noqa: S311
        plan = kills.Plan(kills=6, most=3, share=0.5, draw=draw, pause=0.1)
        return kills.attack("train", tmp_path, tmp_path / "disk", plan)

    return attack


def test_a_command_that_goes_on_after_kills_passes(attack, capsys):
    assert attack(_RESUMES) == []
    *_, n_kills, n_different = capsys.readouterr().out.split()
    assert 0 < int(n_kills) <= 6  # a busy machine may end the command before the last kill
    assert int(n_different) == 0


def test_half_a_file_that_stays_after_a_kill_is_found(attack):
    assert any("out/" in line for line in attack(_LEAVES_HALF_FILES))


def test_a_command_that_does_not_end_is_ended_and_counts_as_a_failure():
    hanging = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], stderr=subprocess.PIPE
    )
    ended = kills.finish(hanging, seconds=0.5)
    assert ended.status is None
    assert hanging.poll() is not None
    attacked = kills.Attacked("row", [], (), Path("work"), Path("disk"))
    assert "did not end" in attacked.outcome("row 0", ended, {})[0]


def kill_forked(name: str, work: Path, folder: Path) -> None:
    """Attack a command with forked processes, and write what differs to a file."""
    adopt_orphans()
    draw = random.Random(f"31 {name}")  # noqa: S311
    plan = kills.Plan(kills=2, most=2, share=0.5, draw=draw, forked=True, pause=2.0)
    (folder / "wrong").write_text("\n".join(kills.attack(name, work, folder / "disk", plan)))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    call_in_new_process(material.make, folder)
    return folder


@pytest.mark.parametrize("name", material.COMMANDS)
def test_killed_command_leaves_what_one_that_nobody_killed_does(work, tmp_path, name):
    call_in_new_process(kill_forked, name, work, tmp_path)
    assert (tmp_path / "wrong").read_text() == ""
