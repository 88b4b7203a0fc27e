"""Count of the waits for the device in a training step of each architecture, on a pretended GPU.

    python -m tools.device_waits

The batch has five images of 128 px, four of which have boxes. The second step is counted: the first
one sends what later steps use again.
"""

from __future__ import annotations

import copy

import torch

from cxr_compare.networks.registry import DETECTORS
from tests.architectures.model_cases import MODEL_CASES
from tools.pretended_device import pretended_cuda


def count_waits(name: str) -> dict[str, int]:
    """Count the waits of one training step, by operation and function, the most frequent first.

    Args:
        name: Name of a case in ``tests.architectures.model_cases``.
    """
    case = MODEL_CASES[name]
    model = case.build(**dict(case.alone)).train()
    with pretended_cuda() as device:
        there = copy.deepcopy(model).to("cuda")
        batch = case.batch().to("cuda")
        for _ in range(2):
            device.forget_counts()
            torch.manual_seed(1)
            there.zero_grad()
            torch.stack([*case.losses(there, batch).values()]).sum().backward()
        return dict(device.waits.most_common())


def main() -> None:
    for name, case in MODEL_CASES.items():
        if case.kind == "detector" and case.model["architecture"] not in DETECTORS:
            continue  # an example of the documents
        waits = count_waits(name)
        print(f"{name}: {sum(waits.values())}")
        for where, count in waits.items():
            print(f"    {count} {where}")


if __name__ == "__main__":
    main()
