"""Follow each way on that a refusal offers: what it reads is what it announces, or it is a fault.

Run it in the clone: ``python -m tests.data_prep.every_line [N]``. Tables that are read have one
column renamed, so that the meaning of each answer is known.
"""

import csv
import io
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from cxr_compare import InputError
from tests.adapters import sources
from tests.cases import load
from tests.data_prep.test_sources import FILES, written_case

HIDDEN = "q7"
"""Name of a column that says nothing."""


def cases(*, read):
    """The cases that are read, or that are refused."""
    listed = [each.values[0] for each in load(*FILES)]
    return [case for case in listed if ("refused" not in case) == read]


def with_a_hidden_column(case):
    """The case with each column of its tables renamed in turn, and the number of that column."""
    for name in case.get("labels", []):
        text = case["files"].get(name)
        if not isinstance(text, str) or not name.endswith(".csv"):
            continue
        rows = list(csv.reader(io.StringIO(text)))
        for number in range(len(rows[0]) if rows else 0):
            head = [*rows[0][:number], HIDDEN, *rows[0][number + 1 :]]
            written = io.StringIO()
            csv.writer(written, lineterminator="\n").writerows([head, *rows[1:]])
            yield {**case, "files": {**case["files"], name: written.getvalue()}}, rows[0][number]


def outcome(case, more=()):
    """The plain table, or the `InputError`."""
    with tempfile.TemporaryDirectory() as folder:
        root, labels, options = written_case(case, Path(folder))
        options = {**options, "columns": (*options.get("columns", ()), *more)}
        try:
            return sources.plain(root / case.get("root", "."), case["format"], labels, options)
        except InputError as error:
            return error


def meaning(found):
    """Return the meaning of a reading, without names of findings that a column alone gives."""
    counts = Counter()
    for of_image in found["states"].get("reference", {}).values():
        counts[tuple(sorted(map(str, of_image.values())))] += 1
    boxes = sorted((image, *box) for image, _, _, *box in found["boxes"])
    patients = {image: facts[1] for image, facts in found["images"].items()}
    return counts, boxes, patients, found["split"]


def answers_of(error):
    """The answers to columns that a refusal offers, without those that leave a name to the user."""
    for point in error.points:
        for way in point.remedies:
            pairs = sources.answer(way)
            if pairs and not any("COLUMN" in pair for pair in pairs):
                yield pairs


def ends(case, truth):
    """Return how each answer to a refusal with a hidden column ends; None if it is read."""
    error = outcome(case)
    if not isinstance(error, InputError):
        return None
    found = []
    for pairs in answers_of(error):
        after = outcome(case, pairs)
        if isinstance(after, InputError):
            same = {point.problem for point in after.points}
            found.append("circle" if error.problem in same else "another")
        else:
            found.append("right" if meaning(after) == truth else "wrong")
    return found, error


def followed(limit=None):
    """Counts of how refusals with a hidden column end, and those that no answer ends rightly."""
    hidden = [
        (each, column, case)
        for case in cases(read=True)
        if case["format"] == "table" and len(case["labels"]) == 1 and not case.get("options")
        for each, column in with_a_hidden_column(case)
    ]
    drawn = random.Random(1).sample(hidden, min(limit or len(hidden), len(hidden)))  # noqa: S311
    counts, lines = Counter(), []
    for case, column, whole in drawn:
        truth = outcome(whole)
        ended = ends(case, meaning(truth))
        if ended is None:
            counts["read without a question"] += 1
            continue
        found, error = ended
        best = next((each for each in ("right", "another", "wrong") if each in found), "none")
        counts.update({"refused": 1, "ways": len(found), "circles": found.count("circle"), best: 1})
        if best in ("none", "wrong"):
            lines.append(f"{best} | {case['name']} | {column} | {str(error)[:230]}")
    return counts, lines


def kinds_of_refusals():
    """Counts of refused cases whose way on is an option, leaves a name open, is words, or none."""
    counts = Counter()
    for case in cases(read=False):
        error = outcome(case)
        ways = [way for point in error.points for way in point.remedies]
        named = [way for way in ways if way.options]
        whole = [way for way in named if not re.search("COLUMN|NAME|FILE", str(way.options))]
        kind = "option" if whole else "open name" if named else "words" if ways else "no remedy"
        counts[kind] += 1
    return counts


if __name__ == "__main__":
    counted, not_right = followed(*map(int, sys.argv[1:]))
    print("\n".join([*not_right, str(dict(counted)), str(dict(kinds_of_refusals()))]))
