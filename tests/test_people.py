"""Files as people have them: each is read as it is meant, or one line says what is wrong where.

A case of ``conformance/inputs/people.json`` writes ``files``, then calls the command with its
``arguments`` and ``options`` in that folder, as a user types them. The outcome is ``expect`` or
``refused``; ``said`` are lines that the user must see. A part of ``refused`` or of such a line is a
text, or a list of texts of which one is enough. ``then`` holds further calls in the same folder:
what the line advises, and its outcome.
"""

import base64
import os
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import people, tables
from tests.advised import assert_leads_on, options_after
from tests.cases import load
from tests.small_dicom import write_radiograph

FIGURES = {"recall": "sensitivity"}
OUTCOMES = {"truth", "scores", "boxes", "figures", "said"}
ORIENTATION = 0x0112  # of EXIF


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif "base64" in content:
            path.write_bytes(base64.b64decode(content["base64"]))
        elif "dicom" in content:
            noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 4096, (64, 64))
            write_radiograph(path, noise.astype(np.uint16), content["dicom"])
        else:
            write_image(path, name, content)


def write_image(path, name, content):
    """An image with greys of its own, so that no two are copies; or of one grey."""
    width, height = content["image"]
    greys = np.random.default_rng(zlib.crc32(os.fsencode(name))).integers(0, 256, (height, width))
    if "grey" in content:
        greys[:] = content["grey"]
    image = Image.fromarray(greys.astype(np.uint8))
    exif = image.getexif()
    if "turned" in content:
        exif[ORIENTATION] = content["turned"]
    image.save(path, exif=exif)


def plain(value):
    """None for what is not known or not defined."""
    return None if pd.isna(value) else value


def by_key(keys, values):
    return {key: plain(value) for key, value in zip(keys, values, strict=True)}


def prepare(arguments, options, out):
    """A data set that is made whole: images are decoded and roles are drawn."""
    data = cxr_compare.prepare(*arguments, out, workers=0, **options)
    path = data.images.set_index("image_id")["path"]
    split = data.split()
    return {
        **people.tables_of(path, data.findings, data.boxes),
        "roles": by_key(path[split["image_id"]], split["role"]),
        "used_roles": sorted(set(split["role"])),
        "views": by_key(path, data.images["view"]),
        "patients": sorted(data.images.groupby("patient_id")["path"].apply(sorted)),
        "left_out": sorted(data.table("excluded")["path"]),
        "text": str(data),
    }


def compare(arguments, options, names):
    """Readings of the systems; the comparison itself where it is asked for."""
    (systems,) = arguments
    found = {}
    if {"truth", "scores", "boxes"} & names and "data" not in options:
        found = results_read(systems, {k: v for k, v in options.items() if k != "policy"})
    if not names or "figures" in names or "data" in options or "said" in names:
        result = cxr_compare.compare(systems, replicates=100, **options)
        table = result.to_frame()
        alone = table[(table["second"] == "")]
        figures = {
            name: by_key(rows["metric"].replace(FIGURES), rows["estimate"])
            for name, rows in alone.groupby("first")
        }
        found = {**decided(result.decisions), **found, "figures": figures, "text": str(result)}
    return found


def results_read(systems, options):
    read = tables.read(systems=systems, **options)
    if isinstance(read, tuple):
        raise InputError(read[1])
    scores, boxes = {}, {}
    for name, system in read["systems"].items():
        boxes[name] = system.get("boxes")
        scores[name] = system.get("scores")
        if scores[name] is None:
            scores[name] = dict.fromkeys(system["run"], 0)
            for image, *_, score in boxes[name]:
                scores[name][image] = max(scores[name][image], score or 0)
    return {"truth": read["labels"], "scores": scores, "boxes": boxes}


def decided(decisions):
    """Labels and scores of the test images."""
    return {
        "truth": by_key(decisions["image_id"], decisions["label"]),
        "scores": {
            name: by_key(rows["image_id"], rows["score"])
            for name, rows in decisions.groupby("system")
        },
    }


def call(step, out):
    """("read", values), or ("refused", line)."""
    arguments, options = step["arguments"], step.get("options", {})
    try:
        if step["command"] == "prepare":
            read = prepare if step.get("whole") else people.read
            return "read", read(arguments, options, out)
        if step["command"] == "compare":
            return "read", compare(arguments, options, {*step.get("expect", {}), *step} & OUTCOMES)
        return "read", {"value": getattr(metrics, step["command"])(*arguments)}
    except InputError as error:
        return "refused", str(error)


def again(step, options, out):
    """The outcome of a call with other options, as far as it is read."""
    return call({**step, "options": options, "whole": False, "expect": {"truth": {}}}, out)


def holds(line, parts):
    """True if each part stands in a line; of a list one is enough."""
    return all(
        any(option in line for option in ([part] if isinstance(part, str) else part))
        for part in parts
    )


def asked(figures, expected):
    """The figures of the systems that are expected by name."""
    return {
        system: {figure: figures[system].get(figure) for figure in names}
        for system, names in expected.items()
    }


def equal(found, expected):
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(equal(found[k], expected[k]) for k in found)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(equal, found, expected))
    if isinstance(expected, int | float):
        return found is not None and found == pytest.approx(expected, abs=1e-6)
    return found == expected


def check(step, out, capsys):
    kind, found = call(step, out)
    lines = capsys.readouterr().err.splitlines()
    if "refused" in step:
        assert kind == "refused", found
        assert "\n" not in found
        assert holds(found, step["refused"]), found
        if step["command"] in ("prepare", "compare"):
            options = step.get("options", {})
            assert_leads_on(
                found, options, lambda options: again(step, options, out), options_after
            )
        return
    assert kind == "read", found
    lines += found.get("text", "").splitlines()
    cautions = [line for line in lines if line.startswith("WARNING")]
    found["repeated"] = sorted({line for line in cautions if cautions.count(line) > 1})
    for name, expected in step["expect"].items():
        of_name = asked(found[name], expected) if name == "figures" else found[name]
        assert equal(of_name, expected), (name, of_name)
    for parts in step.get("said", []):
        assert any(holds(line, parts) for line in lines), lines


@pytest.mark.parametrize("case", load("inputs/people.json"))
def test_what_people_have_means_what_its_case_says(case, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder, case["files"])
    monkeypatch.chdir(folder)
    for number, step in enumerate((case, *case.get("then", []))):
        check(step, f"../set{number}", capsys)
