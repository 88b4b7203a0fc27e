"""Costs of systems in the main table: shown where they are known, a dash where they are not."""

from cxr_compare.evaluation.report.summary_table import cost_frame, main_table
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


def test_the_main_table_ends_with_parameters_flops_and_time(comparison):
    comparison.systems["CheXNet"] = SystemResult(cost=dict(KNOWN))
    table = main_table(comparison)
    assert table.frame["CheXNet"].iloc[-3:].to_dict() == {
        "Parameters (million)": "7.0",
        "FLOPs per image (billion)": "5.7",
        "Time per image (ms)": "30.0",
    }
    assert "Timed on 2 CPU cores." in table.note


def test_an_unrecorded_cost_is_a_dash_and_never_zero(comparison):
    comparison.systems["RetinaNet"] = SystemResult(cost=dict(KNOWN))
    comparison.systems["CheXNet"] = SystemResult()
    assert set(cost_frame(comparison).loc["CheXNet"]) == {"–"}
    comparison.systems["RetinaNet"] = SystemResult()
    assert cost_frame(comparison).empty
    assert "FLOPs" not in main_table(comparison).frame.index
