"""The kept comparisons: what is computed, and which rows of it are kept.

`python -m tests.kept.comparisons OUT NAME ...` writes what this revision gives into a folder OUT
outside of the tree, for the two issues that store the figures anew.
"""

import json
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import cxr_compare
from tests.adapters.activation_maps import compared_with_maps, output_with_maps
from tests.kept import inputs

HERE = inputs.HERE
RESAMPLES = 500
POLICIES = ["max_f1", "sensitivity>=0.95", "specificity>=0.90"]
FEWER = 200  # resamples of the slower comparisons
KEYS = ["target", "topic", "group", "system", "first", "second", "metric", "policy", "subgroup"]
ALL = "all"


def compared(systems, **options):
    return cxr_compare.compare(systems, **options)


def rows_of(result):
    """The figures without their words."""
    return result.to_frame().drop(columns=["method", "note", "findings"], errors="ignore")


@cache
def kept_result(name, data=None):
    """The comparison of one of the first six; `data` is shared/data for the real one."""
    arguments = {
        "quickstart": inputs.quickstart,
        "drawn-1": lambda: inputs.three_systems(1, 300),
        "drawn-2": lambda: inputs.three_systems(2, 900),
        "drawn-3": lambda: inputs.three_systems(3, 160),
        "boxes": inputs.boxes,
        "chexnet": lambda: inputs.chexnet(data),
    }[name]()
    return compared(**arguments, policy=POLICIES, replicates=RESAMPLES)


def kept(name, data=None):
    """Figures and answer of one of the first six."""
    result = kept_result(name, data)
    return rows_of(result), answer_of(result)


def answer_of(result):
    """Claims of the answer: its kind, the tested differences and the numbers that it states."""
    return {
        "kind": result.answer.kind,
        "claims": [claim.to_dict() for claim in result.answer.claims],
        "numbers": numbers(result.headline),
        "numbers of cautions": numbers(" ".join(result.cautions)),
    }


def numbers(text):
    """The numbers of a text, sorted, as they stand there but for the commas of thousands."""
    found = re.findall(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?", text)
    return sorted(number.rstrip(",").replace(",", "").replace("−", "-") for number in found)


def several_answer(result):
    """The numbers of an answer on several findings."""
    return {"numbers": numbers(result.headline)}


def unit_patient(folder):
    """Two classifiers by patient: the highest score of a patient's images counts."""
    arguments = inputs.two_systems(11, 240) | {"policy": POLICIES}
    result = compared(**arguments, unit="patient", replicates=FEWER)
    return rows_of(result), answer_of(result)


def findings(names):
    """A comparison on several findings: figures of each, their mean, and p-values after Holm."""
    result = compared(**inputs.findings(12, 360, names), replicates=FEWER)
    means = result.macro[result.macro["second"] != ""].assign(target="Mean over findings")
    tests = result.tests.rename(columns={"finding": "target"}).assign(metric="auroc")
    of_row = ["target", "first", "second", "metric"]
    holm = pd.concat([table[[*of_row, "p_holm"]] for table in (tests, means)])
    rows = rows_of(result).fillna({"policy": ""}).drop(columns="p_holm")
    return rows.merge(holm, "left", of_row), several_answer(result)


def three_findings(folder):
    """Three findings with all figures at one threshold."""
    rows, answer = findings(inputs.FINDINGS[:3])
    return rows[rows["policy"].isin(["", "max_f1"])], answer


def fourteen_findings(folder):
    """Fourteen findings with the figures of which there is a mean."""
    rows, answer = findings(inputs.FINDINGS)
    return rows[rows["metric"].isin(["auroc", "average_precision"])], answer


def five_folds(folder):
    """The means of five folds with the intervals and p-values of Nadeau and Bengio."""
    reports = []
    for number, arguments in enumerate(inputs.folds(13, 450)):
        reports.append(folder / f"fold-{number}")
        compared(**arguments, policy=POLICIES, replicates=100, out=reports[-1])
    cxr_compare.folds(reports, out=folder / "folds")
    table = read_table(folder / "folds" / "folds.csv")
    shown = table["metric"].isin(["auroc", "average_precision", "recall", "specificity", "f1"])
    columns = ["first", "second", "metric", "policy", "mean", "sd", "ci_low", "ci_high", "p_value"]
    return table.loc[shown, columns], None


def maps(folder):
    """A classifier whose activation maps are cut into boxes, beside a detector."""
    truth, scores = inputs.drawn(15, 300)
    true = inputs.lesions(15, truth)
    grids = inputs.activation_maps(16, truth, true)
    frame = (0.0, 0.0, float(inputs.SIDE), float(inputs.SIDE))
    classifier = output_with_maps(scores["A"], grids, frame)
    detector = inputs.detector(17, pd.Index(truth.image_id), true, 0.8)
    systems = {"D": detector, "C": classifier}
    result = compared_with_maps(systems, truth, true, policy=POLICIES, replicates=FEWER)
    rows = rows_of(result)
    return rows[rows["first"] != "D"], answer_of(result)


def protocol(_):
    """A comparison whose figure, threshold, groups and reference are named."""
    arguments = inputs.with_groups(18, 360)
    arguments["systems"] = {name: arguments["systems"][name] for name in "BA"}
    named = {"metric": "balanced_accuracy", "policy": "max_f1", "subgroups": ["sex"]}
    result = compared(**arguments, **named, replicates=FEWER)
    of_sex = (result.groups["topic"] == "sex") & result.groups["group"].isin(["F", "M"])
    groups = result.groups.loc[of_sex, GROUP_COLUMNS]
    rows = rows_of(result)
    rows = rows[rows["policy"].isin(["", "max_f1"])]
    return pd.concat([rows, groups]), answer_of(result)


def threshold(folder):
    """A threshold that is stated; no image is for validation."""
    arguments = inputs.two_systems(19, 240)
    truth = arguments["truth"].drop(columns="role")
    arguments |= {"truth": truth, "policy": ["threshold=0.5"]}
    result = compared(**arguments, replicates=FEWER)
    rows = rows_of(result)
    return rows[rows["policy"] == "threshold=0.5"], answer_of(result)


def both(folder):
    """A detector and a classifier, and both together as one system more."""
    arguments = inputs.detector_and_classifier(20, 360)
    result = compared(**arguments, both=True, replicates=FEWER)
    rows = rows_of(result)
    rows = rows[rows["policy"].isin(["", "max_f1"])]
    joint = [name for name in rows["first"].unique() if name not in ("D", "C")]
    return rows[rows["first"].isin(joint) | rows["second"].isin(joint)], answer_of(result)


GROUP_COLUMNS = ["topic", "group", "system", "metric", "policy", "estimate", "ci_low", "ci_high"]
KEPT = ("quickstart", "drawn-1", "drawn-2", "drawn-3", "boxes", "chexnet")
NEEDS_SHARED_DATA = ("chexnet",)
RECORDED = {
    "unit-patient": unit_patient,
    "three-findings": three_findings,
    "fourteen-findings": fourteen_findings,
    "five-folds": five_folds,
    "maps": maps,
    "protocol": protocol,
    "threshold": threshold,
    "both": both,
}


def read_table(path):
    """A stored table: texts as texts, an empty cell of a text column as an empty text."""
    table = pd.read_csv(path, low_memory=False)
    texts = [name for name in KEYS if name in table]
    return table.astype(dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, ""))


def differences(expected, got, tolerance=1e-9):
    """One line for each row that is lost, new, there twice, or differs in a value.

    A table without the column `subgroup` is of all images. Figures that did not exist when a table
    was stored are no new rows of it.
    """
    got = got[got["metric"].isin(expected["metric"])] if "metric" in expected else got
    keys = [name for name in KEYS if name in expected]
    one, other = (_by_key(table, keys) for table in (expected, got))
    lines = [
        f"twice: {key}" for table in (one, other) for key in table.index[table.index.duplicated()]
    ]
    if lines:
        return lines
    lines += [f"lost: {key}" for key in one.index.difference(other.index)]
    lines += [f"new: {key}" for key in other.index.difference(one.index)]
    shared = one.index.intersection(other.index)
    for column in one.columns:
        if column not in other:
            lines.append(f"no column {column}")
            continue
        a = pd.to_numeric(one.loc[shared, column]).to_numpy(np.float64)
        b = pd.to_numeric(other.loc[shared, column]).to_numpy(np.float64)
        unequal = ~((np.abs(a - b) <= tolerance) | (a == b) | (np.isnan(a) & np.isnan(b)))
        lines += [
            f"{column} of {shared[row]}: {b[row]!r} instead of {a[row]!r}"
            for row in np.flatnonzero(unequal)
        ]
    return lines


def _by_key(table, keys):
    absent = {name: ALL if name == "subgroup" else "" for name in keys if name not in table}
    table = table.reset_index(drop=True).assign(**absent)
    texts = table[keys].astype(object).where(table[keys].notna(), "").astype(str)
    return table.drop(columns=keys).set_axis(pd.MultiIndex.from_frame(texts))


def main(out, *names):
    """Write the figures of comparisons into a folder, and their answers into answers.json."""
    folder = Path(out)
    folder.mkdir(parents=True)
    answers = {}
    for name in names:
        if name in RECORDED:
            work = folder / f"{name}-work"
            work.mkdir()
            table, answers[name] = RECORDED[name](work)
        else:
            table, answers[name] = kept(name, Path(__file__).parents[3] / "shared" / "data")
        table.to_csv(folder / f"{name}.csv", index=False)
    lines = [f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (folder / "answers.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
