"""Translation of tensor names in a checkpoint into the names of present networks."""

import re
from collections.abc import Callable, Collection

# Names of modules that wrap a network, possibly several times.
_CONTAINERS = re.compile(
    r"^(?:(?:module|_orig_mod|model|net|network|encoder|feature_extractor|backbone|body|trunk"
    r"|features|densenet\d*|resnet\d*|resnext\w*|mobilenet\w*|efficientnet\w*)\.)+"
)
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+")
# torchvision before 0.14 kept the pyramid's and the heads' convolutions outside of a block.
_OLD_PYRAMID = re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$")
_OLD_HEAD = re.compile(r"^(head\.\w+_head\.conv\.)(\d+)\.(weight|bias)$")
_OLD_PROPOSALS = re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$")
_OLD_DENSE = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
# lukemelas' EfficientNets for PyTorch count the norms of each block from 0. Other parts of a block
# (squeeze and excitation of B0 to B7) keep their names, and are reported as unexpected.
_LITE_LAYERS = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "last.conv",
    "_bn1": "last.norm",
}
_LITE_PARTS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_LITE_LAYER = re.compile(rf"^({'|'.join(_LITE_LAYERS)})\.")
_LITE_BLOCK = re.compile(r"^_blocks\.(\d+)\.(\w+)\.")


def name_in_body(key: str) -> str:
    """Return this program's name for a tensor of a backbone, given its name in a weights file.

    A backbone is a classification network without its last layer. Weights files name its tensors
    differently, so names are translated before they are compared. The function knows the names in
    files of torchvision, in the public files that docs/models.md lists, in files of
    EfficientNet-Lite, and in this program's trained detectors and classifiers. Prefixes of modules
    that contain the backbone, such as ``module.`` or ``backbone.``, are removed. A name that needs
    no change is returned as it is.

    Source:
        arnoweng/CheXNet ``model.py``, zoogzog/chexnet ``DensenetModels.py``, mlmed/torchxrayvision
        ``models.py`` and lukemelas/EfficientNet-PyTorch ``model.py``, as published.

    Example:
        >>> name_in_body("module.densenet121.features.denseblock1.denselayer1.norm.1.weight")
        'denseblock1.denselayer1.norm1.weight'
        >>> name_in_body("trunk.layer1.0.conv1.weight"), name_in_body("_blocks.3._bn1.weight")
        ('layer1.0.conv1.weight', 'block3.depthwise.norm.weight')
    """
    key = _CONTAINERS.sub("", key)
    key = _LITE_LAYER.sub(lambda match: f"{_LITE_LAYERS[match[1]]}.", key)
    key = _LITE_BLOCK.sub(_rename_lite_part, key)
    return _OLD_DENSE.sub(r"\1\2", key)


def _rename_lite_part(match: re.Match[str]) -> str:
    number = match[1]
    part = match[2]
    return f"block{number}.{_LITE_PARTS.get(part, part)}."


def detector_renamer(keys: Collection[str]) -> Callable[[str], str]:
    """Return a function that translates tensor names of a detector's file into this program's.

    The names are those of torchvision. Files from before torchvision 0.14 number the convolutions
    of a head (the layers that score boxes) 0, 2, 4 and 6, because they count the ReLU layers
    between them; this program numbers them 0, 1, 2 and 3. FCOS still numbers them in the old way.

    FCOS is recognised by `keys`, the names of all tensors in the file.

    Example:
        >>> rename = detector_renamer(["head.regression_head.conv.6.bias"])
        >>> rename("module.backbone.fpn.inner_blocks.0.weight")
        'backbone.fpn.inner_blocks.0.0.weight'
        >>> rename("head.regression_head.conv.6.bias")
        'head.regression_head.conv.3.0.bias'
    """
    is_fcos = any("bbox_ctrness" in key for key in keys)

    def rename(key: str) -> str:
        key = _WRAPPERS.sub("", key)
        if not is_fcos:
            key = _OLD_HEAD.sub(lambda m: f"{m[1]}{int(m[2]) // 2}.0.{m[3]}", key)
        key = _OLD_PYRAMID.sub(r"\1.0.\2", key)
        return _OLD_PROPOSALS.sub(r"\1.0.0.\2", key)

    return rename
