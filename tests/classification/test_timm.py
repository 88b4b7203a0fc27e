"""Networks of timm as classifiers: their own heads' logits, maps in place, clear refusals."""

import pytest
import timm
import torch
from torch import Tensor, nn

from cxr_compare.classification.activation_maps import activation_maps
from cxr_compare.classification.model import ImageClassifier, build_classifier, start_from
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.checkpoints import Checkpoint
from cxr_compare.serving.export_graph import layout_of

# Name, image size, cells of the last maps, cells of the shown maps.
SMALL = [
    ("test_resnet", 64, 2, 2), ("test_convnext", 64, 2, 2), ("test_efficientnet", 64, 2, 2),
    ("test_vit", 96, 1, 6), ("test_vit2", 96, 6, 6),
]  # fmt: skip
LARGE = [
    ("resnet10t", 128, 4, 4), ("convnext_atto", 128, 4, 4), ("mobilenetv3_small_050", 128, 4, 4),
    ("vit_tiny_patch16_224", 224, 1, 14), ("vit_tiny_patch16_224", 128, 1, 8),
    ("vit_small_patch14_dinov2", 224, 1, 16), ("eva02_tiny_patch14_224", 224, 16, 16),
    ("swin_tiny_patch4_window7_224", 128, 4, 4), ("maxvit_pico_rw_256", 128, 4, 4),
    ("efficientnet_lite0", 128, 4, 4), ("vgg11", 64, 2, 2), ("densenet121", 64, 2, 2),
]  # fmt: skip
NETWORKS = [*SMALL, *(pytest.param(*row, marks=pytest.mark.long) for row in LARGE)]


def images(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8, generator=generator)


def build(name: str, size: int) -> ImageClassifier:
    torch.manual_seed(0)
    return build_classifier(f"timm:{name}", n_findings=2, image_size=size)


@pytest.mark.parametrize(("name", "size", "cells", "shown"), NETWORKS)
def test_logits_equal_those_of_the_networks_head(name, size, cells, shown):
    model = build(name, size).eval()
    size_options = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    whole = timm.create_model(name, num_classes=2, **size_options).eval()
    state = {key.removeprefix("network."): value for key, value in model.trunk.state_dict().items()}
    state |= {
        key.replace("pooled_norm", norm): value
        for key, value in state.items()
        for norm in ("head.norm", "fc_norm")
        if key.startswith("pooled_norm.")
    }
    left = whole.load_state_dict(state, strict=False).missing_keys
    pixels = model.pixels(images(size))
    with torch.no_grad():
        features = model.features(images(size))
        assert features.shape[2:] == (cells, cells)
        if name.startswith(("mobilenetv3", "vgg")):  # whose heads have hidden layers
            pooled = whole.forward_features(pixels).mean((2, 3))
        else:
            assert all(key.endswith(("weight", "bias")) for key in left)
            assert len(left) == 2  # of the last layer
            pooled = whole.forward_head(whole.forward_features(pixels), pre_logits=True)
        expected = model.classifier(pooled)
        torch.testing.assert_close(model.logits(features), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "size", "cells", "shown"), NETWORKS)
def test_maps_tile_the_image_and_class_activation_maps_add_up_to_the_logit(
    name, size, cells, shown
):
    model = build(name, size).eval()
    maps = activation_maps(model, images(size))
    assert maps.maps.shape == (2, 2, shown, shown)
    x1, y1, x2, y2 = maps.frame
    assert (x2 - x1, y2 - y1) == (size, size)
    assert abs(x1) <= 16
    if cells == shown:
        sums = maps.maps.mean((2, 3)) + model.classifier.bias
        torch.testing.assert_close(sums.detach(), maps.logits, atol=1e-5, rtol=1e-4)
    else:
        assert model.map_method("cam") == model.map_method("gradcam") == "token_gradcam"
        assert (maps.maps >= 0).all()
        assert maps.maps.amax() > 0


def test_gradients_of_the_tokens_are_those_of_small_steps():
    model = build("test_vit", 96).eval()
    pixels = images(96)[:1]
    last_block, cut = model.trunk.network.blocks[-1], []
    hook = last_block.register_forward_pre_hook(lambda _, inputs: cut.append(inputs[0]))
    with torch.no_grad():
        model(pixels)
    hook.remove()
    tokens, step = cut[0], 1e-2
    maps = activation_maps(model, pixels).maps[0, 0]
    weights = torch.zeros(tokens.shape[2])
    for channel in range(tokens.shape[2]):
        moved = []
        for sign in (1, -1):
            near = tokens.clone()
            near[:, 1:, channel] += sign * step  # every place, but not the class token
            hook = last_block.register_forward_pre_hook(lambda _, __, near=near: near)
            with torch.no_grad():
                moved.append(float(model(pixels)[0, 0]))
            hook.remove()
        weights[channel] = (moved[0] - moved[1]) / (2 * step) / (tokens.shape[1] - 1)
    expected = (tokens[0, 1:] @ weights).relu().reshape(maps.shape)
    torch.testing.assert_close(maps, expected, atol=2e-4, rtol=2e-2)


def test_a_class_token_has_maps_of_gradients_alone_and_no_export():
    model = build("test_vit", 96)
    assert model.map_method("layercam") == "token_gradcam"
    with pytest.raises(InputError, match="class token"):
        layout_of(model)


def test_weights_of_another_image_size_keep_their_places():
    large, small = build("test_vit", 160), build("test_vit", 96)
    with torch.no_grad():
        large.trunk.network.pos_embed[:, 1:] = 0.25
        large.trunk.network.pos_embed[:, :1] = -1.0
    start_from(small, Checkpoint("run", {f"{k}": v for k, v in large.state_dict().items()}))
    positions = small.trunk.network.pos_embed
    assert positions.shape[1] == 37
    torch.testing.assert_close(positions[:, 1:], torch.full_like(positions[:, 1:], 0.25))
    assert (positions[:, 0] == -1).all()
    assert torch.equal(
        small.trunk.network.patch_embed.proj.weight, large.trunk.network.patch_embed.proj.weight
    )


def test_published_names_of_a_head_norm_go_to_the_norm_of_the_trunk():
    model = build("test_convnext", 64)
    whole = timm.create_model("test_convnext", num_classes=5)
    nn.init.normal_(whole.head.norm.weight)
    start_from(model, Checkpoint("file", whole.state_dict()))
    assert torch.equal(model.trunk.pooled_norm.weight, whole.head.norm.weight)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_small_patch14_dinov2", 128, r"14 px .* 128 px.* = 224$"),
        (
            "crossvit_9_240",
            64,
            r"crossvit_9_240: .*64 px \(.*data.image_size",
        ),
        ("coat_lite_tiny", 64, "coat_lite_tiny: .*cells"),
        (
            "test_vit4",
            96,
            "test_vit4: .*RmsNorm",
        ),
        ("resnet5", 64, "backbone: .*'resnet5'.*timm.list_models"),
    ],
)
def test_unsuitable_network_of_a_classifier_is_refused_in_one_line(name, size, message):
    with pytest.raises(InputError, match=message) as caught:
        build(name, size)
    assert "\n" not in str(caught.value)


def test_cells_of_another_size_than_the_networks_are_refused():
    with pytest.raises(InputError, match=r"last_stride: timm:test_vit .*16 px, not 32"):
        build_classifier("timm:test_vit", image_size=96, last_stride=32)


def test_pixels_are_normalised_as_the_network_learned_them():
    model = build("test_vit", 96)
    learned = timm.get_pretrained_cfg("test_vit")
    assert model.preprocess.mean == pytest.approx(sum(learned.mean) / 3, abs=1e-3)
