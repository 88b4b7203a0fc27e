"""Documented commands parse, and documents that are made from code are those of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.adapters.documents import code_blocks, cxr_commands, options, parse
from tests.test_architecture import PACKAGES
from tools import documents

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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


OF_OTHERS = {"--version", "--small", "--gpus-per-task", "--now"}
"""Options of `cxr` itself, of a script, of SLURM and of systemd."""


def test_an_option_that_a_page_names_is_one_of_a_command():
    known = set().union(*options().values(), OF_OTHERS)
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        quoted = " ".join(re.findall(r"`([^`]+)`", text))
        named = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", quoted))
        assert named <= known, f"{page.name}: {named - known}"


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


def test_generated_documents_are_those_of_the_code():
    assert list(documents.stale()) == [], "run: python tools/documents.py"
