"""The zoo's table: its networks are those of zoo.toml, its split keeps children apart."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import zoo_table
from benchmarks.zoo_latency import CANDIDATES, MODES, PEER, TARGETS, rows_of
from benchmarks.zoo_split import held_roles
from benchmarks.zoo_table import ZOO, Trained, judged_table, read_trained, speed_table
from configs.load import find_config, read_zoo
from data_prep.contracts.errors import InputError

_FIGURES = dict.fromkeys(zoo_table.FIGURES, (0.9, 0.8, 0.95))
_COST = {"peak_memory_bytes": 2**20}
_INFO = {
    "trainable_parameters": 1_025, "parameters": 6_954_881, "peak_memory_bytes": None,
    "processor_seconds": 90.0, "epochs": 3,
}  # fmt: skip


def _speeds(name: str) -> dict[tuple[str, str, str], dict[str, object]]:
    slow, fast = (
        {"images": images, "seconds": 1.0, "processor": 2.0, "noise": 0.0} for images in (10, 50)
    )
    rounds = [dict.fromkeys(CANDIDATES, fast) | {PEER: slow}]
    rows = [row for mode in MODES for row in rows_of(rounds, mode)]
    return {(name, row["mode"], row["candidate"]): row for row in rows}


def test_the_table_has_every_model_of_the_zoo() -> None:
    zoo = read_zoo(find_config("zoo"), ["model.weights=imagenet"])
    table = read_zoo(ZOO, [])
    told = [
        {(m.name, m.model.architecture, m.model.trainable) for m in models}
        for models in (zoo, table)
    ]
    assert told[0] == told[1]
    assert len(table) == len(zoo)


def test_held_out_children_neither_train_nor_choose_and_the_official_folder_is_apart() -> None:
    ids = [f"i{n}" for n in range(600)]
    images = pd.DataFrame({"image_id": ids, "patient_id": [f"p{n // 2}" for n in range(600)]})
    roles = ["train"] * 400 + ["val"] * 80 + ["test"] * 100 + ["unused"] * 20
    official = pd.DataFrame({"image_id": ids, "role": roles})
    made = held_roles(images, official).merge(images)
    by_role = {role: set(part["patient_id"]) for role, part in made.groupby("role")}
    assert set(by_role) == {"train", "val", "test"}
    assert not by_role["test"] & (by_role["train"] | by_role["val"])
    assert 15 <= len(by_role["test"]) <= 60  # a sixth of 200
    assert set(made["image_id"]) == set(ids[:480])
    assert set(made.loc[made["role"] == "val", "image_id"]) == set(ids[400:480])


def test_a_row_names_what_learns_and_the_time_of_an_image_by_back_end() -> None:
    config = next(model for model in read_zoo(ZOO, []) if model.name == "DenseNet121 frozen")
    trained = [Trained(config, _INFO, _FIGURES, _COST)]
    row = judged_table(trained, _speeds("densenet121"), {"densenet121": 5_670_000_000})[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["DenseNet121 frozen", "64, 3", "0.900 (0.800 to 0.950)"]
    assert cells[7:11] == ["6.95 (1,025)", "5.67", "?; 1", "1.5"]
    assert cells[11:] == ["100.0", *["20.0"] * 5]


def test_only_ratios_that_reach_their_target_are_bold() -> None:
    row = speed_table(_speeds("vgg16"))[-1].split(" | ")
    bold = [name for name, cell in zip(CANDIDATES, row[1:], strict=True) if cell.startswith("**")]
    assert bold == [name for name, target in TARGETS.items() if target <= 5.0]


def test_a_report_without_one_of_the_networks_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "metrics.json").write_text(json.dumps({"costs": {}, "metrics": []}))
    with pytest.raises(InputError, match="cxr train"):
        read_trained(ZOO, tmp_path, report)
