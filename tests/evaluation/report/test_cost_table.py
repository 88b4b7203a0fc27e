"""Costs of systems: shown where they are known, "unknown" where they are not."""

from cxr_compare.evaluation.report.cost_table import cost_table
from cxr_compare.evaluation.system_result import SystemResult

KNOWN = {
    "parameters": 6_954_000,
    "trainable_parameters": 1_025,
    "flops": 5.7e9,
    "size_bytes": 28_400_000,
    "train_seconds": 540.0,
    "train_device": "2 CPU cores",
    "latency_ms": 30.0,
    "latency_device": "2 CPU cores",
    "peak_memory_bytes": 91_000_000,
}


def test_the_page_has_one_table_of_costs_with_a_row_for_each_system(comparison):
    comparison.systems["CheXNet"] = SystemResult(cost=dict(KNOWN))
    table = cost_table(comparison)
    assert table.frame.loc["CheXNet"].to_dict() == {
        "Parameters": "7.0 million",
        "FLOPs per image": "5.7 billion",
        "Time per image": "30.0 ms",
        "Size of the weights": "28.4 MB",
    }


def test_an_unrecorded_cost_is_unknown_and_never_zero(comparison):
    comparison.systems["CheXNet"] = SystemResult()
    assert set(cost_table(comparison).frame.loc["CheXNet"]) == {"unknown"}
    comparison.systems["RetinaNet"] = SystemResult()
    assert cost_table(comparison) is None
