"""The figure cases and the comparison's properties fail for each of 21 named faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.faults import FAULTS

pytestmark = pytest.mark.release
ROOT = Path(__file__).resolve().parents[2]
SUITE = [
    "tests/evaluation/test_metrics.py",
    "tests/evaluation/test_boxes.py",
    "tests/evaluation/test_figures.py",
    "tests/evaluation/test_choices.py",
    "tests/evaluation/test_compare.py",
    "tests/conformance/test_conformance_figures.py",
    "tests/evaluation/test_inputs.py",
    "tests/report/test_report.py",
]
WRONG = ("assert ", "AssertionError", "Failed: DID NOT RAISE", "[XPASS(strict)]")


def run_suite(folder, fault=""):
    """Exit status of the suite with a fault in the program, and what the plugin wrote."""
    report = folder / "report.json"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "COV_"))
    } | {"CXR_FAULT": fault, "CXR_FAULT_REPORT": str(report)}
    options = [
        "-x",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.adapters.faults",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *SUITE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(done.stdout[-2000:], done.stderr[-2000:])
    return done.returncode, json.loads(report.read_text())


def test_the_suite_passes_without_a_fault(tmp_path):
    status, found = run_suite(tmp_path)
    assert status == 0
    assert found["failed"] == []


def test_each_of_the_21_faults_is_tried():
    assert {int(name.partition(" ")[0]) for name in FAULTS} == {*range(1, 22)}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_fails_for_the_fault(fault, tmp_path):
    status, found = run_suite(tmp_path, fault)
    assert all(found["reached"]), "the changed lines did not run"
    assert status == 1
    (failed,) = found["failed"]
    assert failed["when"] == "call"
    assert failed["reason"].startswith(WRONG), "the fault is a wrong answer, and no crash"
    print(f"{fault}: {failed['test']}: {failed['reason']}")
