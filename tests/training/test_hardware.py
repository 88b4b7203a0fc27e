"""Loading processes are as many as the machine has room for."""

from types import SimpleNamespace

import pytest

from cxr_compare.configs.load import find_config, read_config
from cxr_compare.training.hardware import Hardware

_GIB = 2**30


@pytest.mark.parametrize(
    ("requested", "device", "devices", "processors", "free", "loaders"),
    [
        pytest.param("auto", "cpu", 1, 16, 8 * _GIB, 0, id="a CPU learns with all of its cores"),
        pytest.param("auto", "cuda", 1, 4, 8 * _GIB, 4, id="one for each core"),
        pytest.param("auto", "cuda", 1, 1, 8 * _GIB, 1, id="never none"),
        pytest.param("auto", "cuda", 1, 64, 8 * _GIB, 8, id="more have nothing to do"),
        pytest.param("auto", "cuda", 4, 16, 8 * _GIB, 4, id="four processes share a machine"),
        pytest.param("auto", "cuda", 1, 16, 2**26, 3, id="what a container has by default"),
        pytest.param("auto", "cuda", 1, 16, 2**23, 0, id="no room for a second batch"),
        pytest.param(5, "cuda", 1, 2, 8 * _GIB, 5, id="as asked"),
        pytest.param(2, "cpu", 1, 2, 8 * _GIB, 2, id="as asked, on a CPU"),
        pytest.param(0, "cuda", 1, 2, 0, 0, id="none, as asked"),
    ],
)
def test_a_gpu_gets_the_loaders_for_which_there_is_room(
    monkeypatch, requested, device, devices, processors, free, loaders
):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr("cxr_compare.training.hardware.cpu_count", lambda: processors)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    changes = [f"training.workers={requested}", "training.batch_size=32", "data.image_size=512"]
    settings = read_config(find_config("chexnet"), changes)
    hardware = Hardware(device, devices, "fp32").with_loaders(settings, devices)
    assert hardware == Hardware(device, devices, "fp32", loaders)


def test_a_system_without_a_folder_of_shared_memory_gets_loaders_too(monkeypatch, tmp_path):
    monkeypatch.setattr("cxr_compare.training.hardware.cpu_count", lambda: 4)
    monkeypatch.setattr("cxr_compare.training.hardware._SHARED_MEMORY", tmp_path / "absent")
    settings = read_config(find_config("chexnet"))
    assert Hardware("cuda", 1, "fp32").with_loaders(settings, 1).loaders == 4


def test_tasks_of_slurm_have_separate_processors(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    monkeypatch.setattr("cxr_compare.training.hardware.cpu_count", lambda: 6)
    settings = read_config(find_config("chexnet"))
    assert Hardware("cuda", 4, "fp32").with_loaders(settings, 4).loaders == 6
