"""Forgeries of reports: what `tests/cases/forgeries.json` says is done to a copy of a report."""

import json
import re
import shutil
import warnings
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd

import cxr_compare
from tests.adapters import folders


def replace(report, file, old, new):
    text = (report / file).read_text(encoding="utf-8")
    assert old in text, (file, old)
    (report / file).write_text(text.replace(old, new, 1), encoding="utf-8")


def every(report, file, old, new):
    text = (report / file).read_text(encoding="utf-8")
    assert old in text, (file, old)
    (report / file).write_text(text.replace(old, new), encoding="utf-8")


def pattern(report, file, old, new):
    text = (report / file).read_text(encoding="utf-8")
    changed = re.sub(old, new, text, count=1, flags=re.DOTALL)
    assert changed != text, (file, old)
    (report / file).write_text(changed, encoding="utf-8")


def append(report, file, text):
    (report / file).write_text((report / file).read_text(encoding="utf-8") + text, encoding="utf-8")


def line(report, file, number, text):
    lines = (report / file).read_text(encoding="utf-8").split("\n")
    lines[number] = text
    (report / file).write_text("\n".join(lines), encoding="utf-8")


def write(report, file, text):
    (report / file).write_text(text, encoding="utf-8")


def drop(report, file):
    path = report / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def copy(report, file, other):
    path = report / file
    shutil.copytree(path, report / other) if path.is_dir() else shutil.copy(path, report / other)


def swap(report, one, other):
    (report / one).rename(report / "between")
    (report / other).rename(report / one)
    (report / "between").rename(report / other)


def link(report, file):
    outside = report.parent / "outside"
    (report / file).rename(outside)
    (report / file).symlink_to(outside)


def in_json(report, file, keys, value):
    path = report / file
    content = json.loads(path.read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    if isinstance(place, list) and keys[-1] in (-1, -2):  # one more
        place.insert(len(place) + keys[-1] + 1, value)
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def row(report, file, keys, value):
    in_json(report, file, [*keys, -1], value)


def version(report):
    in_json(report, "answer.json", ["provenance", "versions", "scipy"], "1.0")


def plain(report, file):
    content = json.loads((report / file).read_text(encoding="utf-8"))
    (report / file).write_text(json.dumps(content), encoding="utf-8")


def cell(report, file, column, how, value):
    table = pd.read_parquet(report / file)
    place = table[column].first_valid_index()
    table.loc[place, column] = table.loc[place, column] + value if how == "add" else value
    table.to_parquet(report / file, index=False)


def column(report, file, name, value):
    table = pd.read_parquet(report / file)
    table.assign(**{name: value}).to_parquet(report / file, index=False)


def rows(report, file, how):
    """Write a table with a row or a column more, or in another order."""
    table = pd.read_parquet(report / file)
    last = table.iloc[[-1]]
    zeros = last.assign(**dict.fromkeys(last.select_dtypes("number"), 0))
    changed = {
        "zeros": pd.concat([table, zeros]),
        "twice": pd.concat([table, last]),
        "order": table.iloc[::-1],
        "column": table.assign(zeros=0),
        "columns": table[[*table][::-1]],
    }
    changed[how].to_parquet(report / file, index=False)


def lines(report, file, how):
    """Write a CSV file with a row or a column more, or in another order."""
    head, *body = (report / file).read_text(encoding="utf-8").splitlines()
    changed = {
        "zeros": [head, *body, ",".join("0" for _ in head.split(","))],
        "twice": [head, *body, body[-1]],
        "order": [head, *body[::-1]],
        "column": [f"{head},zeros", *(f"{line},0" for line in body)],
    }
    (report / file).write_text("\n".join([*changed[how], ""]), encoding="utf-8")


def texts(report, file, name):
    table = pd.read_parquet(report / file)
    table.astype({name: str}).to_parquet(report / file, index=False)


def texts_swapped(report, file, name, one, other):
    table = pd.read_parquet(report / file)
    table[name] = table[name].map({one: other, other: one})
    table.to_parquet(report / file, index=False)


def inputs_of(report, other, of):
    """Put the inputs of another report in the place of those of this one."""
    shutil.rmtree(report / "inputs")
    shutil.copytree(of / other / "inputs", report / "inputs")


def anew(report, keys, value):
    """Write the whole report of a false answer, by the program itself."""
    in_json(report, "answer.json", keys, value)
    folders.write_report_again(report)


def twice(report, file, keys):
    """Write the last item of a list twice, and of an answer the whole report again."""
    content = json.loads((report / file).read_text(encoding="utf-8"))
    items = content
    for key in keys:
        items = items[key]
    items.append(items[-1])
    folders.reseal(report / file, content)
    if file == "answer.json":
        folders.write_report_again(report)


def notes(report, file):
    """Take the notes on the labels out of the inputs, and write the whole report again."""
    folders.reseal(report / file, {**json.loads((report / file).read_text()), "notes": []})
    folders.write_report_again(report)


OPERATIONS = {
    **{
        each.__name__: each
        for each in (append, copy, drop, every, line, link, pattern, plain, replace, row, swap)
    },
    **{each.__name__: each for each in (anew, cell, column, notes, inputs_of)},
    **{each.__name__: each for each in (texts, texts_swapped, version)},
    **{each.__name__: each for each in (lines, rows, twice)},
    "json": in_json,
    "write": write,
}


def write_report(folder: Path, out: Path) -> None:
    """Compare the files ``A.csv`` and ``B.csv`` of a folder."""
    systems = [folder / "A.csv", folder / "B.csv"]
    cxr_compare.compare(*systems, truth=folder / "truth.csv", replicates=100, out=out)


def write_reports(folder: Path) -> dict[str, Path]:
    """Write files as users have them, and reports on a finding, on two, and a table of folds."""
    rng, n = np.random.default_rng(3), np.arange(120)
    label = (n % 3 == 0).astype(int)
    names = [f"i{number:03d}" for number in n]
    truth = pd.DataFrame(
        {
            "image_id": names,
            "label": label,
            "patient_id": [f"JONES_{number}" for number in n],
            "role": np.array(["val", "val", "test", "test", "train", "test"])[n % 6],
            "sex": np.where(n % 4 < 2, "F", "M"),
        }
    )
    truth.to_csv(folder / "truth.csv", index=False)
    many = truth.drop(columns="label").assign(mass=label, nodule=label[::-1])
    many.to_csv(folder / "many.csv", index=False)
    logits = label + rng.normal(size=120)
    for one, two in (("A", "C"), ("B", "D")):
        score = 1 / (1 + np.exp(-logits))
        pd.DataFrame({"image_id": names, "score": score}).to_csv(folder / f"{one}.csv", index=False)
        both = pd.DataFrame({"image_id": names, "mass": score, "nodule": 1 - score})
        both.to_csv(folder / f"{two}.csv", index=False)
        logits = logits + 0.5 * rng.normal(size=120)
    reports = {name: folder / name for name in ("tables", "several", "folds")}
    write_report(folder, reports["tables"])
    options = {"target": ["nodule", "mass"], "replicates": 100, "truth": folder / "many.csv"}
    cxr_compare.compare(folder / "C.csv", folder / "D.csv", out=reports["several"], **options)
    (folder / "folds").mkdir()
    (folder / "folds" / "folds.csv").write_text("first,metric,mean\nA,auroc,0.8\n")
    folders.reseal(folder / "folds" / "folds.json", {})
    return reports


def falsified(folder: Path, file: str, column: str, how: str, number: int) -> None:
    """Change a given file, of which a false report is made."""
    table = pd.read_csv(folder / file)
    if how == "flip":
        table.loc[number, column] = 1 - table.loc[number, column]
    elif how == "each":
        table[column] = np.arange(len(table))
    elif how == "truth":
        table[column] = pd.read_csv(folder / "truth.csv")["label"] * 0.9
    else:
        assert how == "exchange"
        table[column] = pd.read_csv(folder / "B.csv")[column]
    table.to_csv(folder / file, index=False)


def archive(report: Path, how: str) -> Path:
    path = report.with_suffix(".zip")
    with warnings.catch_warnings(), ZipFile(path, "w") as content:
        for each in sorted(report.rglob("*")):
            content.write(each, each.relative_to(report.parent))
        if how == "beside":
            content.writestr("results.html", "<h1>AUROC 0.999</h1>")
        if how == "twice":
            warnings.simplefilter("ignore")
            content.writestr(f"{report.name}/report.html", "<h1>AUROC 0.999</h1>")
    return path
