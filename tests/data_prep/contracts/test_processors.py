"""A process uses no more processors than its container and scheduler grant."""

import pytest
from cxr_compare.data_prep.contracts.processors import cpu_count


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "350000 100000\n"}, 4),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_quota_of_a_container_counts_as_fewer_processors(tmp_path, monkeypatch, files, processors):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16), raising=False)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cpu_count(tmp_path) == processors
