"""The runner and the pytest plugin of `conformance/`, as another program uses them."""

import json
import re
import shutil
import subprocess
import sys

import jsonschema
import pytest
import yaml

from conformance import cases
from tests.cases import CONFORMANCE

FILES = sorted((CONFORMANCE / "figures").glob("*.json"))
ADAPTER = """
def recall(case):
    positive = [score for score, label in zip(case.scores, case.labels) if label]
    return sum(score >= case.threshold for score in positive) / len(positive) if positive else None

def ap50(case):
    return NotImplemented if case.truth else None

def auroc(case):
    raise RuntimeError("no")

FIGURES = {"recall": recall, "ap50": ap50}
"""
MENDED = {"RIGHT": ADAPTER, "WRONG": ADAPTER.replace(">= case", "> case")}
MENDED["REFUSES"] = ADAPTER + 'FIGURES["auroc"] = auroc\n'


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with the modules and cases alone, and adapters of the standard library."""
    folder = tmp_path_factory.mktemp("conformance_of_others")
    without = shutil.ignore_patterns("adapters", "inputs", "__pycache__", "run.py")
    shutil.copytree(CONFORMANCE, folder / "conformance", ignore=without)
    for name, text in MENDED.items():
        (folder / f"{name.lower()}.py").write_text(text)
    return folder


def check(folder, *words):
    """Call the runner without any installed package, and isolated from this repository."""
    command = [sys.executable, "-S", "-m", "conformance.check", *words]
    return subprocess.run(
        command, cwd=folder, env={}, capture_output=True, text=True, timeout=60, check=False
    )


def plugin(folder, *words):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "conformance.plugin", *words, "conformance/figures"]
    return subprocess.run(
        command, cwd=folder, env={}, capture_output=True, text=True, timeout=60, check=False
    )


def counts(shown):
    """Equal, other, refused, not offered of each level."""
    rows = re.findall(r"^([a-z ]+?) +(\d+) +(\d+) +(\d+) +(\d+)$", shown, re.MULTILINE)
    return {name: [int(number) for number in numbers] for name, *numbers in rows}


@pytest.mark.parametrize("ask", [check, plugin])
def test_a_right_program_is_told_so_by_the_standard_library_alone(ask, copy):
    words = ["right"] if ask is check else ["--conformance", "right"]
    done = ask(copy, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = list(cases.questions())
    found = counts(done.stdout)
    assert {*found} == {*cases.LEVELS, "no level", "all"}
    for level in cases.LEVELS:
        assert sum(found[level]) == sum(level in question.levels for question in asked)
    offered = [
        question
        for question in asked
        if question.name == "recall" or (question.name == "ap50" and not question.data.truth)
    ]
    assert found["all"] == [len(offered), 0, 0, len(asked) - len(offered)]


@pytest.mark.parametrize("ask", [check, plugin])
@pytest.mark.parametrize(("adapter", "column"), [("wrong", 1), ("refuses", 2)])
def test_a_wrong_answer_and_an_exception_are_named_with_their_case(ask, adapter, column, copy):
    done = ask(copy, *([adapter] if ask is check else ["--conformance", adapter]))
    assert done.returncode == 1
    assert counts(done.stdout)["all"][column] > 0
    name = {
        "wrong": "a score equal to the threshold is called: recall@0.5 is 1, not 0.5",
        "refuses": "equal scores of all images rank nothing: auroc is 0.5, not RuntimeError",
    }
    assert name[adapter] in done.stdout


EDITS = {
    "a value": ('"value": 0.5', '"value": 0.25'),
    "an edge": ('["a", 0, 0, 10, 10]', '["a", 0, 0, 10, 11]'),
    "a tolerance": ('"tolerance": 1e-09', '"tolerance": 0.1'),
    "a level": ('["camelyon"]', "[]"),
    "the version": (f'"suite": "{cases.SUITE}"', '"suite": "0.9"'),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_whose_values_are_not_those_that_it_states_is_refused(edit, copy, tmp_path):
    folder = shutil.copytree(copy, tmp_path / "edited")
    path = folder / "conformance" / "figures" / "froc.json"
    old, new = EDITS[edit]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    for done in (check(folder, "right"), plugin(folder, "--conformance", "right")):
        assert done.returncode not in (0, 1)
        assert "froc.json" in done.stdout + done.stderr


def schema():
    return json.loads((CONFORMANCE / "schema.json").read_text())


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_file_has_the_form_of_the_schema(path):
    jsonschema.Draft202012Validator(schema()).validate(json.loads(path.read_text()))


def test_the_schema_the_changelog_and_the_citation_are_of_this_suite():
    figure = schema()["$defs"]["figure"]["properties"]
    assert figure["levels"]["items"]["enum"] == [*cases.LEVELS]
    newest = (CONFORMANCE / "CHANGELOG.md").read_text().split("\n## ")[1]
    assert newest.startswith(f"{cases.SUITE}\n")
    assert cases.suite_digest() in newest
    values = [len(case["figures"]) for file in FILES for case in cases.read(file)]
    assert f"{len(values)} cases, {sum(values)} values" in newest
    citation = yaml.safe_load((CONFORMANCE / "CITATION.cff").read_text())
    assert citation["version"] == cases.SUITE
