"""Documents: links, names and versions are right, commands parse, generated parts are fresh."""

import ast
import configparser
import contextlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import cxr_compare
from tests.adapters.documents import code_blocks, cxr_commands, options, parse
from tests.world import NETWORKS, SMALL
from tools import documents

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = re.findall(r"^    cxr_compare\.\w+ = (\w+)$", (ROOT / "setup.cfg").read_text(), re.M)
SKILL = ROOT / "skills/cxr-compare/SKILL.md"
SEARCHED = json.loads((ROOT / "tests/cases/search.json").read_text())
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), SKILL]


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


def test_citation_is_that_of_the_package():
    """Version, title and licence stand in several files, which a release changes together."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    package = setup["metadata"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "authors"} <= citation.keys()
    assert citation["title"] == package["name"]
    assert citation["version"] == package["version"] == cxr_compare.__version__
    assert citation["license"] == package["license_expression"]
    assert f"version = {{{package['version']}}}" in (ROOT / "docs/references.bib").read_text()
    assert package["version"] in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]


def headings(page):
    """The anchors of a page: its headings, and those that it names itself."""
    text = page.read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    slugs = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    return slugs | {*re.findall(r'<a id="(.+?)"', text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", text):
        if "://" not in link:
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name} links to {link}"
            if target.suffix == ".md" and anchor:
                assert anchor in headings(target), f"{page.name} links to {link}#{anchor}"


def test_every_page_is_reached_from_the_index_in_two_clicks():
    links = {
        page.name: {*re.findall(r"\]\(([a-z-]+\.md)", page.read_text())}
        for page in (ROOT / "docs").glob("*.md")
    }
    first = links["index.md"]
    assert {*links} - {"index.md"} <= first.union(*(links[name] for name in first))


def test_a_page_has_one_name_in_navigation_readme_and_index():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert re.findall(r"- .+: +\S+\.md", navigation) == [], "its title is the name of a page"
    for page in (ROOT / "README.md", ROOT / "docs/index.md"):
        links = re.findall(r"\[([^\]]+)\]\((?:docs/)?([a-z-]+\.md)\)", page.read_text())
        assert len(links) > 10
        for text, target in links:
            title = re.match(r"# (.+)", (ROOT / "docs" / target).read_text())
            if title and target != "index.md":
                assert " ".join(text.split()).lower() == title[1].lower(), f"{page}: {target}"


@pytest.mark.parametrize("words", SEARCHED)
def test_what_people_search_for_is_in_a_heading_or_the_first_lines_of_its_page(words):
    text = (ROOT / "docs" / SEARCHED[words]).read_text()
    begins = text.partition("\n## ")[0] + "".join(re.findall(r"^#+ .+$", text, re.M))
    for word in words.lower().split():
        assert word in begins.lower(), f"docs/{SEARCHED[words]} has no {word!r} where it begins"


def test_architecture_names_files_that_are_there_with_their_folder():
    bare = re.findall(r"`(?!cxr_compare|cxr_start|__init__)(\w+\.py)`", ARCHITECTURE)
    assert bare == [], "several folders have a file of one name: write the folder, too"
    for path in re.findall(r"`([a-z_]+/[a-z_./]+)`", ARCHITECTURE):
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}"


def steps_of(way):
    """The functions of a way of docs/architecture.md."""
    text = ARCHITECTURE.partition(f"\n## The way of {way}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. `([\w.]+)`", text, re.M)


def named(path):
    """Return the object that `module.name` or `module.Class.name` names."""
    names = path.split(".")
    known = cxr_compare
    for number, name in enumerate(names):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(".".join(["cxr_compare", *names[: number + 1]]))
        known = getattr(known, name)
    return known


def test_architecture_names_classes_and_functions_that_are_there():
    names = re.findall(rf"`((?:{'|'.join(PACKAGES)})\.[\w.]+)`", ARCHITECTURE)
    assert len(names) > 40
    for name in names:
        assert callable(named(name)), name


@pytest.mark.parametrize("way", ["a training", "an image", "a score"])
def test_a_way_of_the_architecture_is_the_one_that_is_gone(way, world, tmp_path):
    image = next(world.xrays.rglob("*.dcm"))
    config, network = NETWORKS["classifier"]
    options = {"data": world.data, "out": tmp_path / "run", "set_": [*SMALL, *network]}
    systems = {"A": [0.1, 0.4, 0.8, 0.9], "B": [0.2, 0.9, 0.4, 0.7]}
    run = world.run("classifier") if way == "an image" else None
    go = {
        "a training": lambda: cxr_compare.train(config, **options),
        "an image": lambda: cxr_compare.predict(run, image, out=tmp_path / "answers"),
        "a score": lambda: cxr_compare.compare(systems, truth=[0, 0, 1, 1]).save(tmp_path / "out"),
    }
    calls = {}
    sys.setprofile(lambda frame, event, _: calls.setdefault(frame.f_code, len(calls)))
    try:
        go[way]()
    finally:
        sys.setprofile(None)
    steps = steps_of(way)
    assert 9 < len(steps) <= 15
    order = {step: calls.get(inspect.unwrap(named(step)).__code__) for step in steps}
    assert None not in order.values(), order
    assert list(order.values()) == sorted(order.values()), order


def test_documented_commands_parse():
    shown = [
        (page.name, command)
        for page in PAGES
        for kind, text in code_blocks(page)
        if kind in ("bash", "sh", "sbatch")
        for command in cxr_commands(text)
    ]
    assert len(shown) > 60
    for page, command in shown:
        try:
            parse(command)
        except Exception as error:
            error.add_note(f"{page}: {command}")
            raise


OF_OTHERS = {"--version", "--small", "--gpus-per-task", "--now", "--install"}
"""Options of `cxr` itself, of a script, of SLURM, of systemd and of WSL."""


def test_an_option_that_a_page_names_is_one_of_a_command():
    known = set().union(*options().values(), OF_OTHERS)
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        quoted = " ".join(re.findall(r"`([^`]+)`", text))
        named = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", quoted))
        assert named <= known, f"{page.name}: {named - known}"


def test_the_skill_has_the_form_of_agent_skills():
    _, head, body = SKILL.read_text().split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["name"] == SKILL.parent.name
    assert 0 < len(facts["description"]) <= 1024
    assert len(SKILL.read_text().splitlines()) <= 120
    commands = re.findall(r"`(cxr [a-z]+ [^`]+)`", body)
    assert len(commands) > 8
    for command in commands:
        for name in re.findall(r"(?<!\S)--[a-z-]+", command):
            assert name in {*options()[command.split()[1]], *OF_OTHERS, "--json"}, command


def texts_of_code() -> Iterator[tuple[str, str]]:
    """Every text of the code, X in place of values, with its file and line."""
    for path in (path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    each.value if isinstance(each, ast.Constant) else "X" for each in node.values
                ]
                yield f"{path}:{node.lineno}", "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path}:{node.lineno}", node.value


def test_a_command_that_a_message_proposes_has_the_options_that_it_names():
    known = options()
    word = r"(?:'[^']*'|[^\s;,:()'`]*[^\s;,:()'`.])"
    wrong = []
    for place, text in texts_of_code():
        for command in re.findall(rf"\bcxr [a-z]+(?:\s+{word})*", text):
            named = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", command))
            if named and not named <= known.get(command.split()[1], set()):
                wrong.append(f"{place}: {command}")
    assert wrong == [], "\n".join(wrong)


def test_the_help_has_the_commands_of_the_readme_first():
    blocks = [text for kind, text in code_blocks(ROOT / "README.md") if kind == "bash"]
    named = dict.fromkeys(c.split()[1] for text in blocks for c in cxr_commands(text))
    assert len(named) > 4
    assert [*options()][: len(named)] == [*named]


ONLY_IN_PYTHON = ("image_score: the function", "image_score of", "its image_score")  # or a column


def test_no_sentence_has_an_option_as_one_kind_of_caller_alone_types_it():
    """Such a sentence is read on a command line, too: `as_typed` writes the option."""
    named = {name[2:].replace("-", "_") for of_command in options().values() for name in of_command}
    several = "|".join(sorted(name for name in named if "_" in name.strip("_")))
    spelled = re.compile(rf"\b(?:{several})\b|(?<!-)\bcolumns [A-Z.]+=|\bthe policy \w+=")
    wrong = [
        f"{place}: {text}"
        for place, text in texts_of_code()
        if text.count(" ") > 2 and "\n" not in text and spelled.search(text)  # no docstring
        if not any(part in text for part in ONLY_IN_PYTHON)
    ]
    assert wrong == [], "\n".join(wrong)


def test_a_page_that_a_message_names_is_there_with_its_heading():
    named = {
        link
        for _, text in texts_of_code()
        for link in re.findall(r"\bdocs/([a-z-]+\.md(?:#[a-z0-9-]+)?)", text)
    }
    assert len(named) > 4
    known = {f"{page.name}#{heading}" for page in PAGES for heading in headings(page)}
    assert named <= known | {page.name for page in PAGES}


def test_generated_documents_are_those_of_the_code():
    assert list(documents.stale()) == [], "run: python tools/documents.py"


def convention_rows():
    """Figures and case of each row of the tables of conventions."""
    for line in (ROOT / "docs/conventions.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| figure", "| input")):
            first, *_, last = line.strip("| ").split(" | ")
            yield [re.findall(r"`(.*?)`", cell) for cell in (first, last)]


def test_the_conventions_name_cases_that_are_there_and_have_each_figure_of_this_kind():
    files = sorted((ROOT / "conformance").rglob("*/*.json"))
    cases = [case for file in files for case in json.loads(file.read_text())["cases"]]
    rows = [*convention_rows()]
    assert len(rows) > 25
    assert {name for _, names in rows for name in names} <= {case["name"] for case in cases}
    assert all(names for figures, names in rows if figures), "each rule has a case that shows it"
    stated = {figure for figures, _ in rows for figure in figures}
    for case in cases:
        for full_name, figure in case.get("figures", {}).items():
            if figure["kind"] == "convention":
                name = re.sub(r"[@/].*|(?<=froc_at_)[\d_]+", "", full_name)
                name = name.replace("froc_at_", "froc_at_N")
                assert name in stated, f"no row has {name} of: {case['name']}"
