"""The `bash` blocks of docs/questions run and say what the pages quote; `sh` blocks only parse."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.scripts.small_sets import cxr
from tests.test_generated_documents import cxr_commands

QUESTIONS = Path(__file__).resolve().parents[2] / "docs" / "questions"
TESTED_ELSEWHERE = (
    "my-two-result-files.md",
    "why-is-my-map-different.md",  # annex studies
    "map-or-accuracy.md",
)
PAGES = [page for page in sorted(QUESTIONS.glob("*.md")) if page.name not in TESTED_ELSEWHERE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages' commands read: 240 images, two a patient; half show an opacity."""
    folder, rng = tmp_path_factory.mktemp("questions"), np.random.default_rng(0)
    names, sick = [f"p{n // 2:03d}-{n % 2}" for n in range(240)], np.arange(240) % 4 < 2
    (folder / "images").mkdir()
    for name in names:
        pixels = Image.fromarray(rng.integers(20, 230, (12, 12), dtype=np.uint8))
        pixels.resize((128, 128)).save(folder / "images" / f"{name}.png")
    table = pd.DataFrame(
        {"file": [f"{name}.png" for name in names], "patient": [name[:4] for name in names]}
    )
    for file, wrong in (("smith", 0.05), ("jones", 0.1)):
        table["label"] = np.where(sick ^ (rng.random(240) < wrong), "opacity", "normal")
        table.to_csv(folder / f"{file}.csv", index=False)
    table["label"] = np.where(sick, "opacity", "normal")
    for edge, at in (("xmin", 20), ("ymin", 30), ("xmax", 60), ("ymax", 70)):
        table[edge] = np.where(sick, str(at), "")
    table.to_csv(folder / "labels.csv", index=False)
    table[["file", "label", "patient"]].to_csv(folder / "diagnoses.csv", index=False)
    box = '<box label="opacity" xtl="20" ytl="30" xbr="60" ybr="70"></box>'
    drawn = "".join(
        f'<image id="{n}" name="{name}.png" width="128" height="128">{shown}</image>'
        for n, (name, shown) in enumerate(zip(names, np.where(sick, box, ""), strict=True))
    )
    (folder / "annotations.xml").write_text(f"<annotations>{drawn}</annotations>")
    for file, gain in (("a", 2.4), ("b", 1.6)):
        scores = 1 / (1 + np.exp(-rng.normal(gain * (sick - 0.5))))
        pd.DataFrame({"image_id": names, "score": scores}).to_csv(folder / f"{file}.csv")
    pd.DataFrame({"image_id": names[6:8], "reason": "child"}).to_csv(folder / "exclude.csv")
    _write_results(folder, names, sick)
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(2000) * 72, unit="min")
    called = rng.random(2000) < np.where(np.arange(2000) < 1200, 0.2, 0.5)
    log = {"time": time.strftime("%FT%TZ"), "patient": range(2000), "score": called * 0.9}
    log["decision"] = np.where(called, "positive", "negative")
    pd.DataFrame(log).to_csv(folder / "log.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cxr(*shlex.split("prepare labels.csv images out/data --val 0.3 --test 0.3"))
        for name in "ab":
            cxr(*shlex.split(f"import {name}.csv --data out/data --out out/{name} --name {name}"))
    return folder


def _write_results(folder: Path, names: list[str], sick: np.ndarray) -> None:
    """Write the labels, boxes and scores of the pages that compare files without a data set."""
    rng = np.random.default_rng(1)
    labels = pd.DataFrame({"image_id": names, "patient_id": [name[:4] for name in names]})
    box = pd.DataFrame({"image_id": names, "x1": 20.0, "y1": 30.0, "x2": 60.0, "y2": 70.0})
    labels.assign(label=sick.astype(int)).to_csv(folder / "truth.csv", index=False)
    box[sick].to_csv(folder / "boxes.csv", index=False)
    edges = ["x1", "y1", "x2", "y2"]
    for file, share in (("detector", 0.9), ("rules", 0.7)):
        found = box[sick & (rng.random(240) < share)].copy()
        found[edges] += rng.integers(-8, 8, (len(found), 4))
        false = box[rng.random(240) < 0.2].assign(x1=70.0, x2=95.0)
        rows = pd.concat([found, false]).sort_values("image_id")
        if file == "detector":
            strength = np.where(rows["x1"] == 70, 2, 4)
            rows["score"] = rng.beta(strength, 6 - strength).round(3)
        rows.to_csv(folder / f"{file}.csv", index=False)
    findings = {"mass": 0.4, "effusion": 0.3, "edema": 0.2, "hernia": 0.02}
    states = {name: rng.random(240) < share for name, share in findings.items()}
    labels.assign(**pd.DataFrame(states).astype(int)).to_csv(folder / "findings.csv", index=False)
    for file, gain in (("first", 2.4), ("second", 1.8)):
        scores = pd.DataFrame({"image_id": names})
        for name, state in states.items():
            if (file, name) != ("second", "hernia"):
                scores[name] = (1 / (1 + np.exp(-rng.normal(gain * (state - 0.5))))).round(4)
        scores.to_csv(folder / f"{file}.csv", index=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_say_what_it_quotes(page, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```(bash|text)\n(.*?)```", page.read_text(), re.DOTALL)
    for command in cxr_commands("".join(text for kind, text in blocks if kind == "bash")):
        assert cxr(*shlex.split(command)[1:]) < 2, command
    said = "".join(capsys.readouterr())
    for line in "".join(text for kind, text in blocks if kind == "text").splitlines():
        assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), said), (line, said)
