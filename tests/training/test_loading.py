"""A batch that fails names its images, wherever it fails."""

from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader

from data_prep.contracts.errors import InputError
from training.loading import NamedBatches, NamedRows, _Unreadable, naming, require_loaded


class _Sample(NamedTuple):
    image_id: str
    value: int


class _Rows:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: Any) -> _Sample:
        row = key[0] if isinstance(key, tuple) else key
        if row == 1:
            raise OSError("file is\ncut short")
        return _Sample("abc"[row], row)


def _refuse(samples: Any) -> Any:
    raise ValueError("all input arrays must have the same shape")


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_cannot_be_read_is_named_in_one_line(workers):
    loader: DataLoader[Any] = DataLoader(
        NamedRows(_Rows(), ["a", "b", "c"]), 2, collate_fn=NamedBatches(list), num_workers=workers
    )  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"image b: cannot be loaded \(OSError: file is\)") as e:
        [require_loaded(batch) for batch in loader]
    assert "\n" not in str(e.value)


def test_row_with_a_seed_is_named_too():
    assert isinstance(NamedRows(_Rows(), ["a", "b", "c"])[(1, 99)], _Unreadable)
    assert NamedRows(_Rows(), ["a", "b", "c"])[(2, 99)] == _Sample("c", 2)


def test_samples_that_do_not_fit_together_are_named():
    batch = NamedBatches(_refuse)([_Sample("a", 0), _Sample("c", 2)])
    with pytest.raises(InputError, match=r"images a, c: do not make a batch \(ValueError: all"):
        require_loaded(batch)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lambda: RuntimeError("shapes differ\nat line 3"), InputError),
        (lambda: InputError("image 'x': box is reversed"), InputError),
        (lambda: torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (KeyboardInterrupt, KeyboardInterrupt),
    ],
)
def test_step_that_fails_names_its_images_but_not_for_want_of_memory(error, kind):
    raised = error()
    with pytest.raises(kind) as caught, naming(["a", "b"], "epoch 2: learning"):
        raise raised
    if type(raised) is RuntimeError:
        assert str(caught.value).startswith(
            "epoch 2: learning failed on the images a, b (RuntimeError: shapes differ);"
        )
        assert caught.value.__cause__ is raised
    else:
        assert caught.value is raised
