"""The arms of a test: RetinaNet and a small classifier, or with ``-m release`` all others."""

from collections.abc import Iterator

import pytest
import torch

from tests.arms.arms import ARMS, Arm, example_installed
from tests.scripts.conftest import blank_plots  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def foreign_arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The detector of docs/architectures.md is installed."""
    with example_installed(tmp_path_factory.mktemp("installed")):
        yield


@pytest.fixture(autouse=True)
def fixed_sums(one_thread: None) -> None:
    """Bit-for-bit comparisons need one order of summation."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def detector(arm: Arm) -> Arm:
    """The arm of a test for detectors alone."""
    return arm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every arm in its turn, so that what one has learned is there for all of its tests."""
    if "arm" in metafunc.fixturenames:
        alone = "detector" in metafunc.fixturenames
        rows = [
            pytest.param(arm, marks=[pytest.mark.release] if arm.release else [], id=arm.name)
            for arm in ARMS.values()
            if not alone or arm.kind == "detector"
        ]
        metafunc.parametrize("arm", rows, scope="module")
