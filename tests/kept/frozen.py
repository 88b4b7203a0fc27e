"""Digests of the tables of a prepared data set, in which the order of rows does not matter.

`python -m tests.kept.frozen OUT DATA` writes what this revision gives for the sets of a folder of
real data into sets.json of a folder OUT outside of the tree, `... OUT` alone what the networks
give into networks.json.
"""

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import cxr_compare
from tests.adapters import networks

KEYS = {
    "images": ["image_id"],
    "findings": ["image_id", "finding", "reader"],
    "boxes": ["image_id", "finding", "reader"],
    "box_coverage": ["image_id", "finding", "reader"],
    "excluded": ["path"],
    "splits/default": ["image_id"],
}
SEED = 97  # of the drawn images and of the weights of the networks
SIDES = {
    "chexnet_quickstart": 96,
    "retinanet_quickstart": 128,
    "chexnet": 96,
    "retinanet": 128,
}
STORED_BOXES = 20  # of each square; the digest is of all


def digest(lines):
    """SHA-256 of lines in sorted order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def cells(column):
    """A column as texts: numbers with 12 digits, so that 1 and 1.0 are one; missing is empty."""
    is_text = not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))
    as_text = str if is_text else lambda value: f"{float(value):.12g}"
    return column.astype(object).map(as_text, na_action="ignore").where(column.notna(), "")


def table_digests(table, keys):
    """Number of rows, digest of the whole table, and of each column that holds anything."""
    columns = [name for name in sorted(table.columns) if table[name].notna().any()]
    texts = table[columns].apply(cells) if len(table) else table[columns].astype(str)
    used = [name for name in keys if name in columns]

    def lines(names):
        return ["\t".join(row) for row in texts[names].to_numpy().tolist()]

    of_columns = {name: digest(lines([*used, name]))[:16] for name in columns if name not in used}
    return {"rows": len(table), "sha256": digest(lines(columns)), "columns": of_columns}


def set_digests(folder):
    """The tables of a prepared data set, and the number of images of each role."""
    found = {}
    for name, keys in KEYS.items():
        path = Path(folder) / f"{name}.parquet"
        if path.exists():
            found[name] = table_digests(pd.read_parquet(path), keys)
    roles = pd.read_parquet(Path(folder) / "splits/default.parquet")["role"].value_counts()
    return found | {"roles": {role: int(count) for role, count in sorted(roles.items())}}


def prepare_set(name, data, work):
    """Prepare one of the real sets into a folder, without its pixels; return the folder."""
    out = work / name
    if name == "covid_hannover":
        # The reader of this collection leaves; read as a user's own table it stays.
        table = pd.read_csv(data / name / "data.csv")
        table["bedside"] = (table["projection"] == "ap").astype(int)
        table["path"] = table["image_id"] + ".png"
        labels = work / "labels.csv"
        table[["path", "patient_id", "sex", "age", "bedside"]].to_csv(labels, index=False)
        column = ["finding=bedside"]
        cxr_compare.prepare(labels, data / name / "png", out, columns=column, name=name)
    else:
        source = {
            "kermany_224": "kermany_224/chest_xray",
            "kermany_full": "kermany_full/chest_xray",
        }
        kind = name.partition("_")[0]
        cxr_compare.prepare(data / source.get(name, name), out, format=kind, name=name)
    return out


def draw_squares(work):
    """Draw 20 images, prepare them, and return the squares of both sides by side and image."""
    cxr_compare.synth(work / "xrays", images=20, size=256, seed=SEED)
    sides = sorted(set(SIDES.values()))
    dataset = cxr_compare.prepare(
        work / "xrays", work / "data", format="rsna", size=sides, name="20 squares"
    )
    return {side: dict(list(networks.stored_squares(dataset, side).items())[:20]) for side in sides}


def square_digests(squares):
    """SHA-256 of each square by side and image."""
    return {
        str(side): {
            name: hashlib.sha256(square.tobytes()).hexdigest() for name, square in of.items()
        }
        for side, of in squares.items()
    }


def network_outputs(name, squares):
    """Names and weights of a network as digests, and what it gives for the squares of its side."""
    model = networks.network(name, SIDES[name])
    networks.draw_weights(model, SEED)
    of_side = [square for _, square in sorted(squares[SIDES[name]].items())]
    found = {
        "tensors": len(networks.tensors(model)),
        "names": networks.names_digest(model),
        "weights": networks.weights_digest(model),
    }
    if "retinanet" in name:
        boxes = networks.boxes(model, of_side)
        found["suppression"] = networks.suppression(model)
        found["counts"] = [len(rows) for rows in boxes]
        found["outputs"] = hashlib.sha256(b"".join(rows.tobytes() for rows in boxes)).hexdigest()
        found["boxes"] = [
            np.round(rows[:STORED_BOXES].astype(np.float64), 5).tolist() for rows in boxes
        ]
        return found, boxes
    scores = networks.scores(model, of_side)
    found["outputs"] = hashlib.sha256(scores.tobytes()).hexdigest()
    found["scores"] = [round(float(score), 8) for score in scores]
    return found, scores


def processor():
    """The model of the processor and the version of torch, on which the last bits depend."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    first = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in first.items()}
    names = [facts.get(key, "") for key in ("model name", "cpu family", "model")]
    kind = " ".join(names) if facts else platform.processor()
    return f"{kind}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def weights(out):
    """SHA-256 of the weights of a quickstart's models, and the processor that trained them."""
    names = ("retinanet", "chexnet")
    files = {name: (Path(out) / name / "model.safetensors").read_bytes() for name in names}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {"processor": processor(), **digests}


SETS = ("covid_hannover", "nih", "kermany_full", "rsna", "kermany_224")


def main(out, data=None):
    """Write sets.json, or networks.json, into a folder."""
    import torch

    torch.set_num_threads(1)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if data is not None:
            record = {name: set_digests(prepare_set(name, Path(data), work)) for name in SETS}
            write_lines(out / "sets.json", record)
            return
        squares = draw_squares(work)
        found = {name: network_outputs(name, squares)[0] for name in SIDES}
        record = {"processor": processor(), "squares": square_digests(squares), **found}
        write_lines(out / "networks.json", record)


def write_lines(path, record):
    """Write a record as JSON, one line for each key."""
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
