"""A folder records the command, versions and revision that made it, but no private path."""

import subprocess
import sys
from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.provenance import provenance

ROOT = Path(__file__).resolve().parents[3]


def test_provenance_names_versions_and_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/ann/notebook.py", "-f", "kernel.json"])
    facts = provenance()
    assert {"python", "numpy", "pydicom"} <= set(facts["versions"])
    assert facts["command"] is None


def test_the_command_names_no_folder_of_the_machine(monkeypatch):
    words = ["compare", "A=/home/ann lee/a,/b c/d", "--data", "/data/set", "--out", "s3://bucket/x"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/cxr", *words])
    assert provenance()["command"] == "cxr compare A=a,d --data set --out s3://bucket/x"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_provenance_names_the_revision_of_the_checkout():
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert str(provenance()["revision"]).removesuffix("-dirty").endswith(head)
