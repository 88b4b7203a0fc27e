"""The peak memory of the commands: what is counted, and that none is forgotten."""

import sys

import pytest

from benchmarks.memory import BOUNDS, SERVICES, peak_mib
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import COMMANDS, all_commands

pytestmark = pytest.mark.release

_HOLD = "import time; held = b'x' * ({mib} << 20); time.sleep(0.3)"


def test_memory_of_a_process_and_of_those_that_it_starts_is_counted_together():
    child = _HOLD.format(mib=50)
    parent = (
        f"import subprocess, sys; held = b'x' * (60 << 20); {{}}([sys.executable, '-c', {child!r}])"
    )
    alone = peak_mib([sys.executable, "-c", _HOLD.format(mib=60)])
    both = peak_mib([sys.executable, "-c", parent.format("subprocess.run")])
    assert 60 < alone < 90
    assert 45 < both - alone < 75  # what both share is counted once


def test_command_that_fails_is_named_with_its_error_output():
    with pytest.raises(InputError, match="failed: ValueError: no memory"):
        peak_mib([sys.executable, "-c", "raise ValueError('no memory')"])


def test_every_command_of_the_core_has_a_row():
    rows = {row.split()[0] for row in BOUNDS} | SERVICES
    assert {*map(command_name, COMMANDS)} <= rows
    assert rows <= {*map(command_name, all_commands()), "--help"}
