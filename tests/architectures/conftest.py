"""The cases of a test: RetinaNet and a small classifier, or with ``-m release`` all others."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.architectures.model_cases import MODEL_CASES, ModelCase
from tests.scripts.conftest import no_drawings  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def foreign_case() -> Iterator[None]:
    """A detector of a user, lesion_centernet.py, can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        yield


@pytest.fixture(autouse=True)
def fixed_sums(one_thread: None) -> None:
    """Bit-for-bit comparisons need one order of summation."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def detector(case: ModelCase) -> ModelCase:
    """The model case of a test that is for detectors only."""
    return case


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run all tests of one model case after the other, so that its trained model is shared."""
    if "case" in metafunc.fixturenames:
        alone = "detector" in metafunc.fixturenames
        rows = [
            pytest.param(case, marks=[pytest.mark.release] if case.release else [], id=case.name)
            for case in MODEL_CASES.values()
            if not alone or case.kind == "detector"
        ]
        metafunc.parametrize("case", rows, scope="module")
