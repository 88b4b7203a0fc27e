"""Advice in the line of a refusal, as changes of its call, and where each of them leads.

A change is (option, value): an option to add, another value of the option that the line begins with
(old value, new value), or None where the line says to leave that option out.
"""

import re
import shlex

from tests.adapters.documents import options as options_of_commands

_WORD = r"""(?:'[^']*'|"[^"]*"|[\w@%+=,./\[\]-]|:(?! ))+"""
_WAY = re.compile(rf"\b(?:add|write) ((?:--[\w-]+(?: (?!--){_WORD})?(?: |(?=[;,.?]|$)))+)")
_BEGIN = re.compile(rf"(--(?:columns|format|patient-pattern|reference|sheet) {_WORD}):? ")
_LISTED = re.compile(r"(?:use|choose one of|there are|it has) ([\w:-]+(?:, [\w:-]+)+)")
_SHOWS_COLUMNS = re.compile(r"\bit (also )?has \S|'[^']+' or '[^']+'|\bnone of (its|the) \d")
_PLACEHOLDER = re.compile(r"\b(COLUMN|NAME|FILE|FINDING|FOLDER)\b|\[\d+\]")
_TYPED = re.compile(rf"--[\w-]+(?: {_WORD})?")
_OPTIONS = {
    name[2:].replace("-", "_") for names in options_of_commands().values() for name in names
}
_NAMES = "|".join(sorted(_OPTIONS))
_OF_TWO_WORDS = "|".join(
    name
    for name in sorted(_OPTIONS)
    if "_" in name and name != "image_score"  # also a column
)
_AS_IN_PYTHON = re.compile(
    rf"\b(?:{_OF_TWO_WORDS})\b"  # patient_pattern
    rf"|\b(?:{_NAMES})(?:=[\['\"{{\d]|=(?:True|False|None)\b)"  # folds=7
    rf"|(?:^|; )(?:cxr: )?(?:{_NAMES}) [^\s:'\"]+: "  # columns label=x: it has no such column
    rf"|\b(?:{_NAMES}) (?!--)[\w:.]+[<>]?=\S"  # the policy threshold=0.5
)


def options_as_in_python(line):
    """Options in a line of the command line that are not written as a user types them there."""
    return _AS_IN_PYTHON.findall(_TYPED.sub("", line))


def ways(line):
    """The ways on that a line advises, each a list of changes that go together."""
    advised = [_changes(shlex.split(match[1])) for match in _WAY.finditer(line)]
    if start := _BEGIN.match(line):
        ((option, given),) = _changes(shlex.split(start[1]))
        advised += [[change] for change in _of_option(line, option, given)]
    return advised


def _changes(words):
    """The options in words of a command line; True for one without a value."""
    changes = []
    for word in words:
        if word.startswith("--"):
            changes.append((word[2:].replace("-", "_"), True))
        else:
            changes[-1] = (changes[-1][0], word)
    return changes


def _of_option(line, option, given):
    """Other values of the option that a line begins with, or that it be left out."""
    if "leave it out" in line:
        return [(option, None)]
    role, sign, _ = given.partition("=")
    meant = re.search(r"did you mean '([^']+)'", line)
    if meant and "no role" in line:
        return [(option, (given, given.replace(role, meant[1], 1)))]
    listed = _LISTED.search(line)
    names = [meant[1]] if meant else re.split(r", | or ", listed[1]) if listed else []
    prefix = f"{role}=" if sign else "reader:" if "no such reader" in line else ""
    return [(option, (given, prefix + name)) for name in names if not _PLACEHOLDER.search(name)]


def is_placeholder(way):
    """True if a way on leaves a name to the user, such as COLUMN."""
    return any(isinstance(value, str) and _PLACEHOLDER.search(value) for _, value in way)


def options_after(options, way):
    """Options of a Python call after changes."""
    options = dict(options)
    for option, value in way:
        if option == "columns":
            given = list(options.get("columns", []))
            if isinstance(value, tuple):
                given[given.index(value[0])] = value[1]
            elif value is None:
                given = []
            else:
                given = [*given, *re.split(r",(?=[\w.:]+[^,]*=)", value)]
            options["columns"] = given
        elif value is None:
            del options[option]
        elif option == "class_names":
            options[option] = value.split(",")
        elif option == "target":
            name, _, findings = value.partition("=")
            options[option] = {name: findings.split(",")}
        else:
            options[option] = value[1] if isinstance(value, tuple) else value
    return options


def words_after(words, way):
    """Words of a command line after changes."""
    words = list(words)
    for option, value in way:
        name = f"--{option.replace('_', '-')}"
        if value is None or isinstance(value, tuple):
            position = words.index(name)
            words[position : position + 2] = [] if value is None else [name, value[1]]
        else:
            words += [name] if value is True else [name, value]
    return words


def assert_leads_on(line, call, outcome, changed):
    """Follow each way on that a line advises: the same line, or one on what was advised, is wrong.

    `changed` gives the call after a way, `outcome` ("read", anything) or ("refused", line) of a
    call. A way that leaves the name of a column to the user is for a line that shows the columns.
    """
    assert options_as_in_python(line) == []
    advised = ways(line)
    followed = [way for way in advised if not is_placeholder(way)]
    for way in followed:
        kind, found = outcome(changed(call, way))
        assert kind == "read" or not is_dead_end(line, way, found), (line, way, found)
    if advised and not followed and "=COLUMN" in line:
        assert _SHOWS_COLUMNS.search(line), line


def is_dead_end(line, way, found):
    """True if a line comes again, or another one complains of what the first one advised."""
    named = tuple(option for option, _ in way)
    begin = found.removeprefix("--").replace("-", "_")
    return found == line or begin.startswith(named)
