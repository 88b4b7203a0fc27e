"""Write the parts of the documents that follow from the code: ``python tools/documents.py``.

`tests/project/test_documents.py` checks that the documents are up to date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # where `tools` lies, if this file is run as a program

import cxr_compare  # noqa: E402
from cxr_compare.configs.load import config_names, read_config  # noqa: E402
from cxr_compare.configs.settings import Classifier, Detector  # noqa: E402
from cxr_compare.data_prep.sources.registry import FORMATS  # noqa: E402
from cxr_compare.evaluation.metrics import METRICS, NO_BOX, Metric  # noqa: E402
from cxr_compare.scripts.cli import COMMANDS  # noqa: E402
from tools.simulation import __main__ as simulation  # noqa: E402

_MEANINGS = {
    "auroc": "Area under the ROC curve: chance that a random positive image scores above a random "
    "negative one (0.5 is guessing).",
    "average_precision": "Precision averaged over the ranks of the positive images.",
    "accuracy": "Share of images called correctly.",
    "precision": "Of the images called positive, the share that is positive.",
    "recall": "Of the positive images, the share called positive.",
    "specificity": "Of the negative images, the share called negative.",
    "npv": "Of the images called negative, the share that is negative.",
    "f1": "Harmonic mean of precision and sensitivity.",
    "balanced_accuracy": "Mean of sensitivity and specificity.",
    "mcc": "Matthews' correlation between label and decision.",
    "pointing_accuracy": "Share of the positive images whose point lies on a lesion, whatever the "
    "threshold.",
    "localised_sensitivity": "Share of the positive images called positive with the point on a "
    "lesion.",
    "ap50": "COCO average precision of the boxes (area under their precision-recall curve), where "
    "a box is right at an IoU of at least 0.5.",
    "ap": "COCO average precision over IoU 0.5 to 0.95.",
    "froc_mean": "Share of lesions found (IoU of at least 0.2), mean over 1/8 to 8 false boxes an "
    "image.",
    "froc_at_N": "Share of the lesions found at N false boxes per image.",
    "box_f1_50": "Harmonic mean of precision and recall of the called boxes, with an IoU of at "
    "least 0.5.",
    "box_precision_50": "Of the called boxes, the share that finds a lesion, with an IoU of at "
    "least 0.5.",
    "box_recall_50": "Of the lesions, the share that a called box finds, with an IoU of at least "
    "0.5.",
    "mean_iou": "Mean over lesions of the IoU of the best called box, 0 without one.",
    "brier": "Mean squared error of the calibrated probability.",
}
_NEEDS = {"decision": "threshold", "count": "threshold", "calibration": "probability"}


def generated() -> dict[str, str]:
    """Return the text of every document with a generated part, by its path."""
    parts = {
        "docs/reference.md": {"commands": commands()},
        "docs/models.md": {"configurations": configurations(), "networks": networks()},
        "docs/metrics.md": {"metrics": metrics()},
        "docs/formats.md": {
            "formats": formats(),
            **{f"example of {name}": example(name) for name in shown_formats()},
        },
        "docs/api.md": {"names": names()},
    }
    pages = {path: _with_parts(_read(path), own) for path, own in parts.items()}
    pages["docs/validity.md"] = simulation.with_tables(_read("docs/validity.md"))
    pages["docs/tutorial.ipynb"] = notebook(_read("docs/tutorial.md"))
    return pages


def stale() -> Iterator[str]:
    """Return the documents that are out of date."""
    for path, text in generated().items():
        if _read(path) != text:
            yield path


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _with_parts(page: str, parts: dict[str, str]) -> str:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->``."""
    for name, text in parts.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        block = f"{start}\n\n{text.strip()}\n\n{end}"
        page, count = re.subn(f"{start}.*?{end}", lambda _, block=block: block, page, flags=re.S)
        if count != 1:
            raise SystemExit(f"a page lacks {start}, or {end}")
    return page


def _table(head: str, rows: Iterable[Iterable[str]]) -> str:
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for row in rows:
        cells = [re.sub(r"(?<!\\)\|", r"\|", cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def notebook(page: str) -> str:
    """Return a page as a notebook without outputs, whose cells of code are its Python blocks."""
    cells: list[dict[str, Any]] = []
    for number, text in enumerate(re.split(r"^```python\n(.*?)^```\n", page, flags=re.M | re.S)):
        kind: dict[str, Any] = {"cell_type": "markdown"}
        if number % 2:
            kind = {"cell_type": "code", "execution_count": None, "outputs": []}
        source = text.strip().splitlines(keepends=True)
        cells.append({**kind, "id": f"cell-{number}", "metadata": {}, "source": source})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def commands() -> str:
    """Return a table of the commands."""
    rows = [(f"`cxr {name}`", command.line) for name, command in COMMANDS.items()]
    return _table("| command | what it does |", rows)


def configurations() -> str:
    """Return a table of the configurations that are shipped."""
    rows = []
    for name in config_names():
        config = read_config(name)
        of_file = (ROOT / "configs" / f"{name}.toml").read_text(encoding="utf-8")
        purpose = of_file.partition("\n")[0].removeprefix("# For: ")
        model, size = config.model, str(config.data.image_size)
        cells = (model.backbone, size, str(config.training.epochs), model.weights)
        rows.append((f"`{name}`", config.kind, *cells, purpose))
    return _table("| name | kind | network | px | epochs | weights | for |", rows)


def networks() -> str:
    """Return a table of the networks."""
    both = [name for name in get_args(Classifier) if name in get_args(Detector)]
    alone = [name for name in get_args(Classifier) if name not in both]
    rows = [("detector and classifier", both), ("classifier", alone)]
    shown = [(use, ", ".join(f"`{name}`" for name in known)) for use, known in rows]
    return _table("| for | networks |", shown)


def metrics() -> str:
    """Return a table of the metrics; those that differ in a number alone share a row."""
    rows: dict[str, tuple[str, ...]] = {}
    counts = [metric for metric in METRICS.values() if metric.family == "count"]
    for metric in (metric for metric in METRICS.values() if metric.family != "count"):
        name = re.sub(r"_at_[\d_]+$", "_at_N", metric.name)
        primary = "yes" if metric.alone else ""
        title = metric.title.replace("1/8", "N") if name.endswith("_N") else metric.title
        undefined = "" if metric.undefined == NO_BOX else metric.undefined  # as the page says
        rows.setdefault(f"`{name}`", (title, _MEANINGS[name], _needs(metric), undefined, primary))
    names = ", ".join(f"`{metric.name}`" for metric in counts)
    titles = ", ".join(metric.title.lower() for metric in counts)
    rows[names] = (titles, "Numbers of images.", _NEEDS["count"], counts[0].undefined, "")
    head = "| name | title | meaning | needs | undefined if | can be primary |"
    return _table(head, ((name, *cells) for name, cells in rows.items()))


def _needs(metric: Metric) -> str:
    if metric.family != "place":
        return _NEEDS.get(metric.family, "")
    return f"threshold, {metric.needs}" if metric.at_threshold else metric.needs


def formats() -> str:
    """Return a table of the formats that ``cxr prepare`` reads."""
    rows = []
    for name, known in FORMATS.items():
        titles = (known.title, *("another source" for _ in known.sources[1:]))
        links = [
            f"[{title}](https://{address})"
            for title, address in zip(titles, known.sources, strict=False)
        ]
        rows.append((f"[`{name}`](#{name})", f"{', '.join(links)}: " * bool(links) + known.folder))
    return _table("| `--format` | the folder holds |", rows)


def shown_formats() -> list[str]:
    """Return the formats of which the page shows an example."""
    return re.findall(r"<!-- example of (\w+) -->", _read("docs/formats.md"))


def example(name: str) -> str:
    """Return the first conformance case of a format: its files, and what they are read as."""
    file = ROOT / "conformance/inputs/sources" / f"{name.replace('-', '_')}.json"
    case = json.loads(file.read_text(encoding="utf-8"))["cases"][0]
    has_boxes = "boxes" in case["expect"]
    lines = []
    for path, content in case["files"].items():
        lines += _file(path, content, has_boxes)
    shown = "\n".join(lines)
    read = "; ".join(_readings(case["expect"]))
    return f"```text\n{shown}\n```\n\nIt is read as {read}."


def _file(path: str, content: Any, has_boxes: bool) -> list[str]:
    """Return the lines of a file below its name; an image has a size or elements instead."""
    if isinstance(content, str):
        return [f"# {path}", *content.splitlines()]
    about = [f"{keyword} {value}" for keyword, value in content.get("dicom", {}).items()]
    if has_boxes and "image" in content:
        about = ["{} x {} px".format(*content["image"])]
    return [f"# {path} ({', '.join(about)})" if about else f"# {path}"]


def _readings(expected: Any) -> Iterator[str]:
    """Say what is known of images: findings, boxes and role; images of one meaning together."""
    images_read_alike: dict[str, list[str]] = {}
    for image, states in expected["states"]["reference"].items():
        said = []
        for word, value in (("present", 1), ("absent", 0)):
            known = [finding for finding, state in states.items() if state == value]
            listed = ", ".join(known) if len(known) < 4 else f"{len(known)} findings"
            said += [f"{listed} {word}"] if known else []
        for box_image, _, reader, *edges in expected.get("boxes", ()):
            if (box_image, reader) == (image, "reference"):
                said.append(f"box {', '.join(map(str, edges))}")
        if image in expected.get("split", {}):
            said.append(f"role {expected['split'][image]}")
        images_read_alike.setdefault(", ".join(said), []).append(f"`{image}`")
    for meaning, images in images_read_alike.items():
        yield f"{', '.join(images)}: {meaning}"


def names() -> str:
    """Return the public names, whose docstrings the site shows."""
    public = [name for name in cxr_compare.__all__ if name not in ("__version__", "metrics")]
    of_arrays = [f"metrics.{name}" for name in cxr_compare.metrics.__all__]
    sections = {
        "Commands": [name for name in public if name in COMMANDS],
        "Runs, answers, results": [name for name in public if name not in COMMANDS],
        "Functions of arrays": of_arrays,
    }
    lines = []
    for title, listed in sections.items():
        lines += [f"## {title}", *(f"::: cxr_compare.{name}" for name in listed)]
    return "\n\n".join(lines)


if __name__ == "__main__":
    contents = generated()
    for document in list(stale()):
        (ROOT / document).write_text(contents[document], encoding="utf-8")
        sys.stdout.write(f"{document}: written\n")
