"""Documented commands parse, and documents that are made from code are those of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.adapters.documents import options, parse
from tests.test_architecture import PACKAGES
from tools import documents

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(page: Path) -> list[tuple[str, str]]:
    """Every block of code of a page: language and text."""
    return re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)


def cxr_commands(text: str) -> list[str]:
    """Every ``cxr ...`` line of a shell block, also behind torchrun, continuation lines joined."""
    lines = (line.strip() for line in re.sub(r"\\\n\s*", " ", text).splitlines())
    found = (re.match(r"(?:(?:torchrun|srun) .*? )?(cxr [a-z].*)", line) for line in lines)
    return [match[1].split("  #")[0] for match in found if match]


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
