"""Documented commands parse, and documents that are made from code are those of the code."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from cxr_compare.scripts.cli import build_app
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import all_commands, command_function
from cxr_compare.scripts.parameters import description, parameters_of
from tests.test_architecture import PACKAGES
from tools import documents

ROOT = Path(__file__).resolve().parents[1]
APP = build_app()


def cxr_commands(text: str) -> list[str]:
    """Every `cxr ...` line of a shell block or script, continuation lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
    return [line.split("  #")[0] for line in lines if re.match(r"cxr [a-z]", line)]


def shell_blocks(text: str) -> str:
    return "\n".join(re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL))


def documented() -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    shown = [line for page in pages for line in cxr_commands(shell_blocks(page.read_text()))]
    examples = [
        example for name in all_commands() for example in description(command_function(name))[1]
    ]
    return shown + examples


def test_documented_commands_parse():
    for command in documented():
        try:
            APP.parse_args(shlex.split(command)[1:])
        except Exception as error:
            error.add_note(command)
            raise


def commands_in_messages() -> Iterator[tuple[str, str, set[str]]]:
    """Every ``cxr NAME ... --option`` in a text of the code: file and line, name, options."""
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            text = _text(node)
            for words in re.findall(
                r"\bcxr [a-z]+(?:\s+(?:'[^']*'|[^\s;,:()'`]*[^\s;,:()'`.]))*", text
            ):
                options = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", words))
                if options:
                    yield f"{path}:{node.lineno}", words.split()[1], options


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def test_a_command_that_a_message_proposes_has_the_options_that_it_names():
    known = {}
    for name in all_commands():
        own = {parameter.option for parameter in parameters_of(command_function(name))}
        negative = {option.replace("--", "--no-") for option in own}
        known[command_name(name)] = {"--json", "--help"} | own | negative
    proposed = list(commands_in_messages())
    assert len(proposed) > 50
    assert [each for each in proposed if not each[2] <= known.get(each[1], set())] == []


def test_reference_shows_every_command_and_readme_both_scripts():
    readme, reference = ((ROOT / name).read_text() for name in ("README.md", "docs/reference.md"))
    for name in map(command_name, all_commands()):
        assert f"[{name}](#{name})" in reference
        assert f"\n## {name}\n" in reference
    assert "scripts/quickstart" in readme
    assert "scripts/test" in readme


def test_every_command_shows_an_example():
    for name in all_commands():
        assert description(command_function(name))[1], f"cxr {name} --help has no example"


def test_generated_documents_are_those_of_the_code():
    assert list(documents.stale()) == [], documents.COMMAND
