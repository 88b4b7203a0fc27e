"""Contents of an annex, a package that can be deleted from a clone, and its deletion.

    python -m tools.annexes NAME        deletes the annex NAME from this clone

These belong to an annex: its folder, the folder of its name in ``tests/``, the pages that its block
in ``mkdocs.yml`` lists, with the pictures and tables that only they show, and marked lines in any
other file. A line that is nothing but the comment ``annex NAME`` begins a block, which ends with
``end of annex NAME``; a line with other text and that comment is marked alone. The comment is one
of Python's or of Markdown's, as in ``<!-- annex NAME -->``. A file without an unmarked line goes.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_HISTORY = "CHANGELOG.md"  # names what was there


def annexes(root: Path = ROOT) -> list[str]:
    """Return the names of the annexes that a clone has, by the marks in its ``setup.cfg``."""
    marks = re.findall(r"^ *# annex (\w+)$", (root / "setup.cfg").read_text(), re.MULTILINE)
    return list(dict.fromkeys(marks))


def modules_of_annexes(name: str) -> list[Any]:
    """Return the modules ``tests/ANNEX/NAME.py``: what a tool needs of the annexes."""
    present = [annex for annex in annexes() if (ROOT / "tests" / annex / f"{name}.py").is_file()]
    return [importlib.import_module(f"tests.{annex}.{name}") for annex in present]


def files(root: Path = ROOT) -> list[Path]:
    """Return the files of a clone that are in git, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return [path for name in done.stdout.splitlines() if (path := root / name).is_file()]


def texts(root: Path = ROOT) -> dict[Path, str]:
    """Return the text of each file of a clone that is one."""
    found = {}
    for path in files(root):
        content = path.read_bytes()
        if b"\0" not in content:
            found[path] = content.decode("utf-8", errors="surrogateescape")
    return found


def split_marked(text: str, annex: str) -> tuple[str, str]:
    r"""Return the text without the marked lines of an annex, and these lines.

    Of the blank lines before and after a block one gap is left.

    Example:
        >>> split_marked("a\n# annex x\nb\n# end of annex x\nc  # annex x\nd\n", "x")
        ('a\nd\n', '# annex x\nb\n# end of annex x\nc  # annex x\n')
    """
    mark = re.compile(rf"(?:#|<!--) (end of )?annex {annex}\b(?: -->)?")
    kept, marked = [], []
    inside = False
    after_block = False
    for line in text.splitlines(keepends=True):
        found = mark.search(line)
        is_mark_alone = found is not None and found[0] == line.strip()
        second_gap = after_block and line.isspace() and (not kept or kept[-1].isspace())
        after_block = second_gap or (is_mark_alone and inside)
        (marked if inside or found or second_gap else kept).append(line)
        if is_mark_alone:
            if inside is not bool(found[1]):
                raise SystemExit(f"the marks of the annex {annex} are not in pairs: {line.strip()}")
            inside = not inside
    if inside:
        raise SystemExit(f"a block of the annex {annex} has no end")
    while marked and kept and kept[-1].isspace():  # the block was the end of the file
        kept.pop()
    return "".join(kept), "".join(marked)


def pages(annex: str, root: Path = ROOT) -> list[Path]:
    """Return the pages of the documents that belong to an annex."""
    _, block = split_marked((root / "mkdocs.yml").read_text(), annex)
    return [root / "docs" / name for name in re.findall(r": (\S+\.md)$", block, re.MULTILINE)]


def belongs(path: Path, annex: str, root: Path = ROOT) -> bool:
    """Return True if the whole of a file belongs to an annex."""
    folders = (root / annex, root / "tests" / annex)
    return path in pages(annex, root) or any(folder in path.parents for folder in folders)


def naming(annex: str, root: Path = ROOT) -> re.Pattern[str]:
    """Return a pattern of lines that name a module, a folder or a page of an annex."""
    in_pages = "|".join(re.escape(page.name) for page in pages(annex, root))
    names = rf"\bcxr_compare[./]{annex}\b|\btests[./]{annex}\b|(?<![\w./-]){annex}/"
    return re.compile(rf"^.*(?:{names}|(?<![\w-])(?:{in_pages})).*$", re.MULTILINE)


def delete(annex: str, root: Path = ROOT) -> None:
    """Delete an annex from a clone, with all that belongs to it."""
    gone = pages(annex, root)
    shown = "".join(page.read_text() for page in gone)
    shutil.rmtree(root / annex)
    shutil.rmtree(root / "tests" / annex)
    (root / "cxr_compare" / annex).unlink(missing_ok=True)
    for page in gone:
        page.unlink()
    for path, text in texts(root).items():
        kept, marked = split_marked(text, annex)
        if marked and kept.strip():
            path.write_bytes(kept.encode("utf-8", errors="surrogateescape"))
        elif marked:
            path.unlink()
    left = "".join(text for path, text in texts(root).items() if path.name != _HISTORY)
    for path in files(root):
        if root / "docs" in path.parents and path.name in shown and path.name not in left:
            path.unlink()


def main() -> None:
    """Delete the annex that is named."""
    parser = argparse.ArgumentParser(prog="python -m tools.annexes", description=__doc__)
    parser.add_argument("annex", choices=annexes())
    annex = parser.parse_args().annex
    delete(annex)
    print(f"{annex} is deleted. Run: pip install -e . && python tools/documents.py")


if __name__ == "__main__":
    main()
