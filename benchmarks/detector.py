"""A detector at 512 px beside torchvision's RetinaNet with the same weights.

Torchvision's loss and decoding, which `LesionRetinaNet` replaces, take turns with ours on equal
networks.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.image_list import ImageList

import cxr_compare
from benchmarks.turns import Work
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.preprocess import Preprocess
from cxr_compare.detection.retinanet import LesionRetinaNet

SIZE = 512
BESIDE = "torchvision"
BLOCKS = 16  # px of one grey value
Made = dict[str, Tensor]


def predict_work(data: cxr_compare.DataSet, scratch: Path) -> Work:
    """Predictions of a data set, from the weights on the disk to a folder of tables."""
    settings: dict[str, object] = {
        "data.image_size": SIZE,
        "model.weights": "none",
        "model.trainable": "all",
        "model.norm": "group",
        "training.epochs": 1,
        "training.batch_size": 2,
        "training.workers": 0,
        "training.precision": "fp32",
    }
    run, out = scratch / "detector", scratch / "boxes"
    cxr_compare.train("retinanet", data=data, out=run, set_=settings)
    opened: Any = cxr_compare.Run.open(run)
    plain = _torchvision(opened.network.model)
    torch.save(plain.state_dict(), scratch / "detector.pt")

    def ours() -> cxr_compare.Predictions:
        shutil.rmtree(out, ignore_errors=True)
        cxr_compare.predict(run, data=data, out=out)
        return cxr_compare.Predictions.open(out)

    ids = ours().images_run
    store = data.store(SIZE)
    np.save(scratch / "squares.npy", np.stack([store.image(image_id) for image_id in ids]))

    def other() -> list[dict[str, Tensor]]:
        plain.load_state_dict(torch.load(scratch / "detector.pt"))
        grey = torch.from_numpy(np.load(scratch / "squares.npy")).float() / 255
        with torch.inference_mode():
            return [plain([square.expand(3, -1, -1)])[0] for square in grey]

    def check(own: cxr_compare.Predictions, found: list[dict[str, Tensor]]) -> None:
        for image_id, boxes in zip(ids, found, strict=True):
            table = own.boxes[own.boxes["image_id"] == image_id]
            corners = boxes["boxes"]
            has_area = (corners[:, 2:] > corners[:, :2]).all(dim=1)  # the tables have no others
            np.testing.assert_allclose(table["score"], boxes["scores"][has_area], atol=1e-5)
            np.testing.assert_allclose(table[EDGES], corners[has_area], atol=0.01)

    name = f"predict {len(ids)} images of a data set, RetinaNet R50 at {SIZE} px"
    return Work(name, ours, {BESIDE: other}, check, len(ids))


def _torchvision(network: LesionRetinaNet) -> RetinaNet:
    """Return torchvision's detector of the same layers, in which the background has no score."""
    means, deviations = [network.preprocess.mean] * 3, [network.preprocess.std] * 3
    made = RetinaNet(
        network.backbone,
        network.n_findings + 1,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=means,
        image_std=deviations,
        anchor_generator=network.anchor_generator,
        head=network.head,
        score_thresh=network.score_thresh,
        nms_thresh=network.nms_thresh,
        detections_per_img=network.detections_per_img,
    )
    with torch.no_grad():
        network.head.classification_head.cls_logits.bias[:: network.n_findings + 1] = -20.0
    return made.eval()


class PlainRetinaNet(LesionRetinaNet):
    """The detector with torchvision's loss and torchvision's decoding."""

    compute_loss = RetinaNet.compute_loss
    postprocess_detections = RetinaNet.postprocess_detections


class _Stored(nn.Module):
    """A layer whose output is known."""

    def __init__(self, output: dict[str, Tensor]) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: object) -> dict[str, Tensor]:
        """Return the output."""
        return self.output


def _networks(n_findings: int = 1) -> tuple[LesionRetinaNet, LesionRetinaNet]:
    """Return two networks with the same random weights, ours and the plain one."""
    made = []
    for kind in (LesionRetinaNet, PlainRetinaNet):
        torch.manual_seed(0)
        made.append(kind(Preprocess(size=SIZE, mean=0.449, std=0.226), n_findings, nms_iou=0.5))
    return made[0], made[1]


def _images(n_images: int) -> Tensor:
    """Return squares ``(B, 1, S, S)`` of random blocks."""
    side = SIZE // BLOCKS
    drawn = torch.Generator().manual_seed(0)
    blocks = torch.randint(256, (n_images, 1, side, side), dtype=torch.uint8, generator=drawn)
    return blocks.repeat_interleave(BLOCKS, 2).repeat_interleave(BLOCKS, 3)


def _targets(n_images: int) -> list[Made]:
    """Return one or two true boxes for each second image, and none for the others."""
    rng = np.random.default_rng(0)
    targets = []
    for image in range(n_images):
        n_boxes = (0, 1, 0, 2)[image % 4]
        corners = rng.uniform(0, SIZE / 2, (n_boxes, 2))
        boxes = np.hstack([corners, corners + rng.uniform(SIZE / 16, SIZE / 2, (n_boxes, 2))])
        labels = torch.ones(n_boxes, dtype=torch.int64)
        targets.append({"boxes": torch.from_numpy(boxes).float(), "labels": labels})
    return targets


def _outputs(network: LesionRetinaNet, images: Tensor) -> tuple[Made, Made]:
    """Return the maps of the levels, and what the heads say of them."""
    with torch.no_grad():
        maps = network.eval().backbone(network.preprocess.normalise(images).expand(-1, 3, -1, -1))
        return maps, network.head(list(maps.values()))


def decode_work(n_findings: int, n_images: int = 2) -> Work:
    """From outputs of the layers to boxes."""
    images = _images(n_images)
    ours, plain = _networks(n_findings)
    maps, outputs = _outputs(ours, images)
    for network in (ours, plain):
        network.backbone, network.head = _Stored(maps), _Stored(outputs)

    @torch.inference_mode()
    def boxes(network: LesionRetinaNet) -> list[Made]:
        return network.eval()(images)[1]

    def check(own: list[Made], other: list[Made]) -> None:
        torch.testing.assert_close(own, other, rtol=0, atol=0)

    findings = "1 finding" if n_findings == 1 else f"{n_findings} findings"
    name = f"detector outputs at {SIZE} px to boxes, {findings}"
    return Work(name, lambda: boxes(ours), {BESIDE: lambda: boxes(plain)}, check, n_images)


def loss_work(n_images: int = 8) -> Work:
    """From outputs of the layers to losses and their gradients."""
    images, targets = _images(n_images), _targets(n_images)
    ours, plain = _networks()
    maps, outputs = _outputs(ours, images)
    sides = ImageList(images, [(SIZE, SIZE)] * n_images)
    anchors = ours.anchor_generator(sides, list(maps.values()))
    for values in outputs.values():
        values.requires_grad_()

    def learn(network: LesionRetinaNet) -> Made:
        for values in outputs.values():
            values.grad = None
        losses = network.compute_loss(targets, outputs, anchors)
        torch.stack([*losses.values()]).sum().backward()
        gradients = {n: v.grad for n, v in outputs.items() if v.grad is not None}
        return {**{name: loss.detach() for name, loss in losses.items()}, **gradients}

    name = f"loss and gradient of detector outputs, {n_images} images at {SIZE} px"
    beside = {BESIDE: lambda: learn(plain)}
    return Work(name, lambda: learn(ours), beside, torch.testing.assert_close)


def step_work() -> Work:
    """From an image to the gradients of all weights."""
    images, targets = _images(1), _targets(4)[3:]
    ours, plain = _networks()

    def learn(network: LesionRetinaNet) -> Made:
        network.zero_grad()
        losses, _ = network.train()(images, targets)
        torch.stack([*losses.values()]).sum().backward()
        gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        return {**{name: loss.detach() for name, loss in losses.items()}, **gradients}

    def check(own: Made, other: Made) -> None:
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)

    name = f"RetinaNet R50 forward and backward, 1 image of {SIZE} px, fp32"
    return Work(name, lambda: learn(ours), {BESIDE: lambda: learn(plain)}, check)
