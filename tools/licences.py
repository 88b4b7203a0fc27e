"""Name, version and licence of every package that the program needs to run.

    python tools/licences.py                    fails on GPL, AGPL, an unknown licence, a gap
    python tools/licences.py --skip-missing     evaluates what is installed alone
    python tools/licences.py --extras           names the extras that it evaluates, to install them

The packages are those of `install_requires` and of every extra that users install, with all that
these need in turn, as the installed metadata say. Run it before a release in an environment with
every extra: CONTRIBUTING.md says how.
"""

from __future__ import annotations

import configparser
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OWN = "cxr-compare"
FOR_DEVELOPERS = ("test", "bench", "docs")
"""Extras that no user installs."""

UNKNOWN = ""
_COPYLEFT = re.compile(r"(?<![A-Za-z])A?GPL|Affero|GNU General Public", re.IGNORECASE)
# The runtime libraries of GCC may be linked into programs of any licence.
_HARMLESS = re.compile(r"A?GPL[-\w.+]*\s+WITH\s+GCC-exception-[\d.]+", re.IGNORECASE)
_CLASSIFIER = "License :: "
_NO_LICENCES = ("", "UNKNOWN", "OSI Approved", "License :: OSI Approved")
# What begins a licence's text, and its name; the first that is found counts.
_TEXTS = {
    r"GNU AFFERO GENERAL PUBLIC": "AGPL",
    r"GNU LESSER GENERAL PUBLIC": "LGPL",
    r"GNU GENERAL PUBLIC": "GPL",
    r"Apache (Software )?License,?\s+(Version )?2\.0|Apache License\s+Version 2\.0": "Apache-2.0",
    r"Mozilla Public License Version 2\.0": "MPL-2.0",
    r"Permission is hereby granted, free of charge": "MIT",
    r"Redistribution and use in source and binary forms": "BSD",
    r"Permission to use, copy, modify, and(/or)? distribute": "ISC",
    r"NVIDIA": "NVIDIA proprietary",
}


@dataclass(frozen=True)
class Licence:
    """Licence of a package, as its metadata state it."""

    name: str  # of the package
    version: str
    licence: str  # empty where nothing states it
    source: str  # where it is stated

    @property
    def problem(self) -> str:
        """Reason against a dependency on the package; empty if there is none."""
        if self.licence == UNKNOWN:
            return "states no licence"
        return "GPL or AGPL" if is_copyleft(self.licence) else ""


def is_copyleft(licence: str) -> bool:
    """Return True if a licence is GPL or AGPL in each of its alternatives.

    Example:
        >>> is_copyleft("GPL-3.0-only"), is_copyleft("MIT OR GPL-3.0-only"), is_copyleft("LGPL-2.1")
        (True, False, False)
    """
    alternatives = re.split(r"\s+OR\s+", licence)
    return all(_COPYLEFT.search(_HARMLESS.sub("", each)) for each in alternatives)


def required_extras(config: configparser.ConfigParser) -> dict[str, list[str]]:
    """Return the requirements of each extra in setup.cfg; those of the core have an empty name."""
    extras = dict(config["options.extras_require"])
    listed = {name: text for name, text in extras.items() if name not in FOR_DEVELOPERS}
    listed[""] = config["options"]["install_requires"]
    return {name: [line for line in text.split("\n") if line] for name, text in listed.items()}


def closure(requirements: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the names of all packages that requirements need in turn: installed, and missing."""
    installed = set[str]()
    missing = set[str]()
    seen = set[tuple[str, str]]()
    todo = [(Requirement(text), "") for text in requirements]
    while todo:
        requirement, of_extra = todo.pop()
        marker = requirement.marker
        name = canonicalize_name(requirement.name)
        if name == OWN or (marker is not None and not marker.evaluate({"extra": of_extra})):
            continue
        wanted = {(name, extra) for extra in ("", *requirement.extras)} - seen
        seen |= wanted
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        installed.add(name)
        todo += [(Requirement(text), extra) for _, extra in wanted for text in needs]
    return installed, missing


def licence_of(name: str) -> Licence:
    """Find the licence of an installed package in its metadata, else in its licence file."""
    distribution = metadata.distribution(name)
    facts: Any = distribution.metadata  # its protocol has no `get` in Python 3.11
    version = distribution.version
    expression = facts.get("License-Expression") or ""
    if expression:
        return Licence(name, version, expression, "metadata")
    classifiers = [c for c in facts.get_all("Classifier") or [] if c.startswith(_CLASSIFIER)]
    named = [c.rpartition(" :: ")[2] for c in classifiers]
    named = [text for text in named if text not in _NO_LICENCES]
    if named:
        return Licence(name, version, " AND ".join(named), "classifiers")
    stated = (facts.get("License") or "").strip()
    line = stated.split("\n")[0]
    if stated not in _NO_LICENCES and len(stated) < 100:
        return Licence(name, version, line, "metadata")
    for text, source in ((stated, "metadata"), *_licence_files(distribution)):
        found = (known for phrase, known in _TEXTS.items() if re.search(phrase, text))
        licence = next(found, UNKNOWN)
        if licence:
            return Licence(name, version, licence, source)
    files = distribution.files or []  # none where the record is lost: then nothing is known
    if files and all(".dist-info" in str(path) for path in files):
        return Licence(name, version, "none needed", "no files: it only names other packages")
    return Licence(name, version, UNKNOWN, "")


def _licence_files(distribution: metadata.Distribution) -> Iterator[tuple[str, str]]:
    """Return the texts of the licence files of a package, and their names."""
    for path in distribution.files or ():
        is_licence = re.match(r"(?i)(licen[cs]e|copying|eula)", path.name)
        if is_licence and ".dist-info" in str(path) and path.suffix not in (".py", ".pyc"):
            yield path.read_text(encoding="utf-8"), path.name


def table(licences: Iterable[Licence]) -> str:
    """Return a row for each package, its name first."""
    rows = [(each.name, each.version, each.licence or "?", each.source) for each in licences]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(row.rstrip() for row in padded)


def problems(
    licences: Iterable[Licence], missing: Mapping[str, str], *, skip_missing: bool
) -> list[str]:
    """Return the problems that forbid a release."""
    lines = [f"{each.name} {each.version}: {each.problem}" for each in licences if each.problem]
    if not skip_missing:
        lines += [
            f"{name}: is not installed ({why}), so its licence is not known"
            for name, why in missing.items()
        ]
    return lines


def main(arguments: list[str]) -> int:
    """Print the table and the problems; return the exit status."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    if "--extras" in arguments:
        print(",".join(name for name in required_extras(config) if name))
        return 0
    names = set[str]()
    missing = dict[str, str]()
    for extra, requirements in sorted(required_extras(config).items()):
        installed, absent = closure(requirements)
        names |= installed
        for name in sorted(absent):
            missing.setdefault(name, f"extra {extra}" if extra else "core")
    licences = [licence_of(name) for name in sorted(names)]
    print(table(licences))
    wrong = problems(licences, missing, skip_missing="--skip-missing" in arguments)
    print(f"{len(licences)} packages, {len(missing)} not installed, {len(wrong)} problems")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
