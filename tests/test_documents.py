"""The texts of the documents: links, names, versions and phrases."""

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

import cxr_compare
from tests.test_architecture import PACKAGES

ROOT = Path(__file__).resolve().parents[1]


def test_extras_are_installed_from_a_clone_as_no_index_has_the_package():
    kinds = ("*.md", "*.py", "*.toml", "*.jinja")
    folders = [ROOT / name for name in (*PACKAGES, "docs")]
    files = [
        *ROOT.glob("*.md"),
        *(path for folder in folders for kind in kinds for path in folder.rglob(kind)),
    ]
    assert len(files) > 200
    from_an_index = re.compile(r"(?<!\./)cxr-compare\[")  # ./cxr-compare is a clone
    assert [path for path in files if from_an_index.search(path.read_text())] == []


def test_citation_follows_its_schema_and_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    Draft7Validator(json.loads((ROOT / "tests/citation.schema.json").read_text())).validate(
        citation
    )
    assert citation["version"] == cxr_compare.__version__
    assert citation["license"] == "Apache-2.0"


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").iterdir()), ids=str)
def test_issue_form_asks_and_warns_of_patients_data(form):
    content = yaml.safe_load(form.read_text())
    assert content.keys() == {"name", "description", "labels", "body"}
    warning, *fields = content["body"]
    assert "never attach" in warning["attributes"]["value"].lower()
    assert all(item["attributes"].keys() >= {"label", "description"} for item in fields)
    assert len({item["id"] for item in fields}) == len(fields)


def test_ci_tests_under_the_versions_of_python_that_are_stated():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    stated = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == stated


PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_constraints_pin_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    assert {"torch", "torchvision", "numpy", "pydicom"} <= {pin.split("==")[0] for pin in pins}


def test_architecture_names_files_that_are_there_with_their_folder():
    page = (ROOT / "docs" / "architecture.md").read_text()
    bare = re.findall(r"`(?!cxr_compare|cxr_start|__init__)(\w+\.py)`", page)
    assert bare == [], "several folders have a file of one name: write the folder, too"
    for path in re.findall(r"`([a-z_]+/[a-z_./]+)`", page):
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}"
