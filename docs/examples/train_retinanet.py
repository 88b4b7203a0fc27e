"""Train a RetinaNet in plain PyTorch: python train_retinanet.py out/data out/plain-report.

`cxr train` trains this model class on the same squares, and adds changed images, balanced draws,
averaged weights, clipping, half precision, the choice of an epoch, checkpoints and a record.
"""

import sys

import torch
from torch.utils.data import DataLoader, Dataset

import cxr_compare
from cxr_compare.data_prep.parallel import Silence
from cxr_compare.data_prep.preprocess import Preprocess
from cxr_compare.detection.retinanet import LesionRetinaNet

SIZE, EPOCHS, BATCH, RATE = 128, 4, 8, 1e-3


class Squares(Dataset):
    """Images as squares, uint8 (1, SIZE, SIZE), with the boxes of lesions in px of the square."""

    def __init__(self, data, image_ids):
        self.image_ids, self.store = image_ids, data.make_store(SIZE, Silence())
        lesions = data.target_boxes(data.target()).groupby("image_id")
        self.lesions = {name: rows[["x1", "y1", "x2", "y2"]] for name, rows in lesions}

    def __len__(self):
        return len(self.image_ids)

    def __getitem__(self, row):
        name = self.image_ids[row]
        edges = self.lesions.get(name, [])  # px of the original; a negative image has none
        boxes = torch.from_numpy(self.store.placement(name).to_store(edges)).float()
        labels = torch.ones(len(boxes), dtype=torch.int64)  # 1 is a lesion, 0 the background
        return torch.from_numpy(self.store.image(name))[None], {"boxes": boxes, "labels": labels}


def train(model, squares):
    """Learn by the focal loss of classes and the GIoU loss of boxes, from 8 images or more."""
    batches = DataLoader(squares, BATCH, shuffle=True, drop_last=True, collate_fn=list)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, EPOCHS * len(batches))
    model.train()
    for epoch in range(EPOCHS):
        for batch in batches:  # anchors learn a lesion from IoU 0.5 on, background below 0.4
            losses, _ = model(torch.stack([x for x, _ in batch]), [boxes for _, boxes in batch])
            loss = losses["classification"] + losses["bbox_regression"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f} in the last batch")


@torch.inference_mode()
def detect(model, squares, name, width, height):
    """Return the boxes of an image in px of the original, and their scores."""
    _, (found,) = model.eval()(torch.from_numpy(squares.store.image(name))[None, None])
    placement = squares.store.placement(name)
    boxes = placement.to_original(found["boxes"].numpy(), width, height)
    return {"boxes": boxes, "scores": found["scores"]}


if __name__ == "__main__":
    folder, out = sys.argv[1:]
    torch.manual_seed(0)
    data = cxr_compare.DataSet.open(folder)
    learned = data.learned_labels(data.target(), boxed=True).index  # each lesion has its box
    squares = Squares(data, data.image_ids("train").intersection(learned))
    small = {"backbone": "resnet18", "norm": "batch", "fpn_channels": 64, "head_convs": 2}
    pixels = Preprocess(size=SIZE, mean=0.449, std=0.226)
    model = LesionRetinaNet(pixels, n_findings=1, nms_iou=0.3, **small)  # 9 anchors a cell
    train(model, squares)
    ids = [*data.image_ids("val"), *data.image_ids("test")]
    sizes = data.images.set_index("image_id").loc[ids, ["width", "height"]]
    outputs = [detect(model, squares, *row) for row in sizes.itertuples()]
    systems = {"RetinaNet": cxr_compare.boxes_table(outputs, ids)}  # image score: best box
    # The threshold has the best F1 on val.
    print(cxr_compare.compare(systems, data=folder, out=out, overwrite=True))
