"""Freeze what the program writes, and compare it with what another revision writes.

    python tools/frozen_outputs.py make OUT --shared ../shared/data [--phantom QUICKSTART]
    python tools/frozen_outputs.py compare BEFORE AFTER

``make`` runs the ``cxr`` of the checkout that contains this file: (a) it compares the published
CheXNet scores of ``chexnet_scores`` as three systems; (b) with ``--phantom``, the finished output
of ``scripts/quickstart``, it tunes and compares the stored predictions of both models; (c) it
prepares RSNA's DICOM files and Kermany's folders. ``compare`` lists every difference of the tables
and JSON files. Times, versions and paths are not compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
REPLICATES = "300"
TABLES = ("*.csv", "*.parquet", "*.json", "*.npy")
# Facts about a run that are not compared: its time, its location and the version of the program.
VOLATILE = {
    "created",
    "made",
    "time",
    "seconds",
    "versions",
    "version",
    "git_revision",
    "revision",
    "hardware",
    "command",
    "source",
    "source_root",
    "data",
    "path",
    "paths",
    "started",
    "ended",
    "duration_s",
    "machine",
    "folder",
    "run",
    "sha256_of_this_file",
}
KEYS = (
    "target",
    "unit",
    "subgroup",
    "system",
    "first",
    "second",
    "policy",
    "metric",
    "test",
    "topic",
    "group",
    "comparison",
    "method",
    "measure",
    "image_id",
)
VAL_DIGITS = set("012")


def cxr(*arguments: str | Path) -> None:
    """Run a command of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cxr_compare.scripts.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def make_chexnet(shared: Path, out: Path) -> None:
    """Compare three of CheXNet's scores against RSNA's labels.

    Patients whose id ends in 0, 1 or 2 are the validation patients.
    """
    folder = shared / "chexnet_scores"
    truth = pd.read_csv(folder / "truth_rsna.csv")
    patient = truth["Image Index"].str[:8]
    role = patient.str[-1].isin(VAL_DIGITS).map({True: "val", False: "test"})
    kinds = {"Lung Opacity": "lung_opacity", "Normal": "normal"}
    labels = pd.DataFrame(
        {
            "file": truth["Image Index"],
            "patient_id": "nih:" + patient,
            "split": role,
            "x_class": truth["class"].map(kinds).fillna("not_normal"),
            "lung_opacity": truth["Target"],
        }
    )
    source = out / "source"
    source.mkdir(parents=True)
    labels.to_csv(source / "labels.csv", index=False)
    rng = np.random.default_rng(0)
    for name in labels["file"]:  # the scores are published without the images, so these are noise
        noise = Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8))
        noise.save(source / f"{name.removesuffix('.png')}.png")
    cxr(
        "prepare",
        source / "labels.csv",
        source,
        out / "data",
        "--columns",
        "x_class=x_class",
        "--split",
        "official",
    )
    systems = []
    for finding in ("Pneumonia", "Consolidation", "Infiltration"):
        cxr(
            "import",
            folder / "preds.csv",
            "--data",
            out / "data",
            "--out",
            out / finding,
            "--name",
            f"CheXNet {finding}",
            "--columns",
            f"image=Image Index,score=prob_{finding}",
            "--ignore-unknown",
        )
        cxr("tune", out / finding, "--data", out / "data")
        systems.append(out / finding)
    cxr(
        "compare",
        *systems,
        "--data",
        out / "data",
        "--out",
        out / "report",
        "--replicates",
        REPLICATES,
        "--margin",
        "0.05",
        "--unit",
        "patient",
    )


def make_phantom(quickstart: Path, out: Path) -> None:
    """Tune and compare stored predictions of both models of a finished ``scripts/quickstart``."""
    out.mkdir(parents=True)
    data = quickstart / "data"
    stored = sorted((quickstart / "report" / "systems").glob("*"))
    folders = {}
    for folder in stored:
        name = json.loads((folder / "predictions.json").read_text())["system"]
        kind = json.loads((folder / "predictions.json").read_text())["kind"]
        folders[kind] = out / name
        shutil.copytree(folder, out / name)
        shutil.rmtree(out / name / "decisions", ignore_errors=True)
    detector = folders["boxes"]
    classifier = folders["scores"]
    for folder in (detector, classifier):
        cxr("tune", folder, "--data", data)
    shutil.copytree(detector, out / "top_k")
    shutil.rmtree(out / "top_k" / "decisions")
    cxr("tune", out / "top_k", "--data", data, "--reduction", "top_k")
    cxr(
        "compare",
        detector,
        classifier,
        "--data",
        data,
        "--out",
        out / "report",
        "--replicates",
        REPLICATES,
        "--unit",
        "patient",
        "--prevalence",
        "0.1",
    )
    cxr(
        "compare",
        f"top_k={out / 'top_k'}",
        f"plain={detector}",
        classifier,
        "--data",
        data,
        "--out",
        out / "three",
        "--replicates",
        REPLICATES,
    )


def make_datasets(shared: Path, out: Path) -> None:
    """Prepare two data sets."""
    out.mkdir(parents=True)
    cxr("prepare", shared / "rsna", out / "rsna", "--format", "rsna", "--size", "64")
    cxr("prepare", shared / "kermany_224", out / "kermany", "--format", "kermany", "--size", "32")


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each leaf of a JSON value but those that differ in any two runs."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in VOLATILE:
                yield from flat(item, f"{name}.{key}")
    elif isinstance(value, list):
        seen: Counter[str] = Counter()
        for place, item in enumerate(value):
            keys = [key for key in KEYS if key in item] if isinstance(item, dict) else []
            row = ", ".join(str(item[key]) for key in keys)
            seen[row] += 1
            yield from flat(item, f"{name}[{row} #{seen[row]}]" if row else f"{name}[{place}]")
    else:
        yield name, value


def same(a: Any, b: Any) -> bool:
    """Return True if two values are equal, or both NaN; numbers to 1e-9 of their size."""
    if isinstance(a, float | int) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (a != a and b != b)
    return bool(a == b)


def json_differences(before: Path, after: Path) -> Iterator[str]:
    """Yield a line for each leaf of two JSON files that differs, is gone, or is new."""
    old, new = (dict(flat(json.loads(path.read_text()))) for path in (before, after))
    for name in old.keys() | new.keys():
        if name not in new or name not in old:
            yield f"{'gone' if name not in new else 'new'} {name}: {old.get(name, new.get(name))}"
        elif not same(old[name], new[name]):
            yield f"{name}: {old[name]!r} -> {new[name]!r}"


def read(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet table."""
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def table_differences(before: Path, after: Path) -> Iterator[str]:
    """Yield a line for each column and row of two tables that differs.

    Rows of a table of metrics are matched by their key.
    """
    old = read(before)
    new = read(after)
    for name in sorted(set(old) ^ set(new)):
        yield f"column {name} {'gone' if name in old else 'new'}"
    shared = [name for name in old if name in set(new)]
    key = [name for name in KEYS if name in shared]
    old, new = (t[shared].astype(object).where(t[shared].notna(), None) for t in (old, new))
    if key:
        old["_n"] = old.groupby(key, dropna=False).cumcount()
        new["_n"] = new.groupby(key, dropna=False).cumcount()
        old, new = (t.set_index([*key, "_n"]) for t in (old, new))
        for place in old.index.difference(new.index):
            yield f"row gone {place}"
        for place in new.index.difference(old.index):
            yield f"row new {place}"
        both = old.index.intersection(new.index)
        old = old.loc[both]
        new = new.loc[both]
    elif len(old) != len(new):
        yield f"{len(old)} rows -> {len(new)}"
        return
    for name in old:
        if name in VOLATILE:
            continue
        for place, a, b in zip(old.index, old[name], new[name], strict=True):
            if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
                if not np.array_equal(a, b):
                    yield f"{name} at {place} differs"
            elif not same(a, b):
                yield f"{name} at {place}: {a!r} -> {b!r}"


def compare(before: Path, after: Path, most: int) -> int:
    """Print at most so many differences of two folders for each file; return 1 if there are any."""
    files = sorted(
        {
            p.relative_to(root)
            for root in (before, after)
            for glob in TABLES
            for p in root.rglob(glob)
        }
    )
    found = 0
    for file in files:
        a = before / file
        b = after / file
        if not a.exists() or not b.exists():
            lines = ["file gone" if a.exists() else "file new"]
        elif file.suffix == ".npy":
            lines = [] if a.read_bytes() == b.read_bytes() else ["pixels differ"]
        elif file.suffix == ".json":
            lines = list(json_differences(a, b))
        else:
            lines = list(table_differences(a, b))
        if lines:
            found += 1
            print(f"{file}: {len(lines)} differences")
            print("\n".join(f"    {line}" for line in lines[:most]))
    print(f"{len(files)} files compared, {found} with differences")
    return 1 if found else 0


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("out", type=Path)
    maker.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    maker.add_argument("--phantom", type=Path, help="finished output of scripts/quickstart")
    maker.add_argument("--only", choices=["chexnet", "phantom", "datasets"])
    comparer = commands.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    comparer.add_argument("--most", type=int, default=10, help="differences shown of a file")
    asked = parser.parse_args()
    if asked.command == "compare":
        sys.exit(compare(asked.before, asked.after, asked.most))
    if asked.only in (None, "chexnet"):
        make_chexnet(asked.shared, asked.out / "chexnet")
    if asked.only in (None, "phantom") and asked.phantom:
        make_phantom(asked.phantom.resolve(), asked.out / "phantom")
    if asked.only in (None, "datasets"):
        make_datasets(asked.shared, asked.out / "datasets")


if __name__ == "__main__":
    main()
