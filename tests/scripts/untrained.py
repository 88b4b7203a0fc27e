"""A run whose model has learned nothing."""

from pathlib import Path
from typing import Any

import torch

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.model import build_detector
from cxr_compare.networks.model_files import save_model
from cxr_compare.training.run_info import RunInfo
from tests.stored_json import bind_tables


def untrained_run(kind: str, data: Path, run: Path, size: int = 32) -> Path:
    """Its folder; of kind detector or classifier."""
    dataset = DataSet.open(data)
    ids, target = dataset.ids, dataset.target()
    run.mkdir()
    torch.manual_seed(0)
    if kind == "classifier":
        model: Any = build_classifier("small_cnn", image_size=size)
    else:
        model = build_detector(
            "retinanet", backbone="resnet18", fpn_channels=16, head_convs=1, image_size=size
        )
        torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.5)
    save_model(model, run)
    (run / "config.toml").write_text('[model]\nbackbone = "small_cnn"\nweights = "none"\n')
    Preprocess(size=size, mean=0.5, std=0.25).write(run / "preprocess.json")
    made_on = MadeOn(
        name=dataset.name,
        content_id=ids.content_id,
        labels_id=ids.labels_id,
        split="default",
        split_id=ids.split_ids["default"],
    )
    roles = dataset.split("default").merge(dataset.images[["image_id", "patient_id"]])
    seen = roles.loc[roles["role"] != "test", ["image_id", "patient_id", "role"]]
    write_table(seen, run / "seen.parquet", "seen")
    info = RunInfo(
        name=kind,
        model_kind=kind,
        target=target.name,
        findings=target.any_of,
        seed=0,
        data_set=made_on,
        pretrained="none",
        created="today",
        n_train=20,
        n_val=4,
        synthetic=bool(dataset.synthetic.all()),
    )
    info.write(run / "run.json")
    bind_tables(run)
    return run
