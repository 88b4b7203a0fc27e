"""What a system costs is told where it is known, "unknown" where not."""

from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.evaluation.report.cost_table import COST_KEYS, cost_frame
from cxr_compare.evaluation.report.data_files import write_data_files
from cxr_compare.evaluation.report.system_rows import cost_table
from cxr_compare.evaluation.system_result import SystemResult

KNOWN = {
    "parameters": 6_954_000,
    "trainable_parameters": 1_025,
    "flops": 5.7e9,
    "size_bytes": 28_400_000,
    "train_seconds": 540.0,
    "train_device": "2 CPU cores",
    "train_peak_memory_bytes": 2_500_000_000,
    "latency_ms": 30.0,
    "latency_device": "2 CPU cores",
    "peak_memory_bytes": 91_000_000,
}


def test_the_page_has_one_table_of_costs_with_a_row_for_each_system(comparison):
    comparison.systems["CheXNet"] = SystemResult(cost=dict(KNOWN))
    table = cost_table(comparison)
    told = dict(zip(table.columns, table.rows[1], strict=True))
    assert told == {
        "System": "CheXNet",
        "Parameters": "7.0 million",
        "FLOPs per image": "5.7 billion",
        "Time per image": "30.0 ms",
        "Size of the weights": "28.4 MB",
    }


def test_an_unrecorded_cost_is_unknown_and_never_zero(comparison):
    comparison.systems["CheXNet"] = SystemResult()
    assert set(cost_table(comparison).rows[1][1:]) == {"unknown"}
    written = cost_frame(comparison).set_index("system").loc["CheXNet"]
    assert written[list(COST_KEYS)].isna().all()
    comparison.systems["RetinaNet"] = SystemResult()
    assert cost_table(comparison) is None


def test_a_program_finds_the_same_in_costs_csv_and_metrics_json(comparison, tmp_path):
    comparison.systems["CheXNet"] = SystemResult(cost=dict(KNOWN))
    decisions = comparison.decisions.assign(probability=0.5)
    write_data_files(replace(comparison, decisions=decisions), tmp_path)
    table = pd.read_csv(tmp_path / "costs.csv").set_index("system")
    assert list(table.index) == comparison.names
    auroc = comparison.metrics.query("metric == 'auroc' and system == 'CheXNet'").iloc[0]
    row = table.loc["CheXNet"]
    assert (row["auroc"], row["auroc_low"]) == (auroc["estimate"], auroc["ci_low"])
    told = read_json(tmp_path / "metrics.json", "metrics")["costs"]["CheXNet"]
    assert {key: told[key] for key in KNOWN} == {key: row[key] for key in KNOWN} == KNOWN
