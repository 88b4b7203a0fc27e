"""Every option of every command is shown in use or explained."""

from __future__ import annotations

import re
from pathlib import Path

from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import all_commands, command_function
from cxr_compare.scripts.parameters import Parameter, description, parameters_of

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"reference.md", "api.md", "metrics.md", "changelog.md"}
# Their issues take them away: the pages do not speak of them any more.
LEAVING = {"prepare --add", "predict --backend", "compare --charts", "show --machine"}


def parameters() -> list[tuple[str, Parameter]]:
    """Return each parameter with the name of its command function."""
    return [
        (command, parameter)
        for command in all_commands()
        for parameter in parameters_of(command_function(command))
    ]


def command_lines() -> list[str]:
    """Return the command lines of the documents and of the help texts, each on one line."""
    texts = [(ROOT / "README.md").read_text(encoding="utf-8")]
    pages = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in GENERATED]
    texts += [page.read_text(encoding="utf-8") for page in pages]
    lines = []
    for text in texts:
        joined = re.sub(r"\\\n\s*", " ", text)
        lines += re.findall(r"cxr [a-z]+ [^`\n]*|`--[^`\n]*", joined)
    for command in all_commands():
        lines += description(command_function(command))[1]
    return lines


def is_shown(lines: list[str], command: str, parameter: Parameter) -> bool:
    """Return True if a command line gives the parameter, or a page names its option."""
    start = f"cxr {command_name(command)} "
    lines = [f" {line.strip('`')} " for line in lines if line.startswith((start, "`--"))]
    if parameter.positional:
        return bool(lines)
    option = re.compile(rf"(?<= ){re.escape(parameter.option)}[ =]")
    return any(option.search(line) for line in lines)


def n_sentences(text: str) -> int:
    """Return the number of sentences of a help text."""
    return len(re.findall(r"[.!?](?=\s|$)", text))


def test_an_option_is_in_an_example_or_has_two_sentences():
    lines = command_lines()
    unexplained = [
        f"{command} {parameter.option}: {parameter.help}"
        for command, parameter in parameters()
        if not is_shown(lines, command, parameter) and n_sentences(parameter.help) < 2
        if f"{command} {parameter.option}" not in LEAVING
    ]
    assert unexplained == []
