"""The networks of the five papers: their parameters, the shapes they take and give, and whose weights they accept."""

from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

import pytest

from ai.errors import UnknownArchitecture
from tests.seed_networks import nothing, on_meta

if TYPE_CHECKING:
    from torch import Tensor, nn

pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

SEGMENTERS = [
    "plain_unet",
    "resnet22_unet",
    "resnet22_fpn",
    "resnet34_unet",
    "resnet34_fpn",
    "resnet22_smp_unet",
    "resnet22_smp_fpn",
    "resnet34_smp_unet",
    "resnet34_smp_fpn",
    "tile_unet",
]
PATCH_CLASSIFIERS = ["vgg16_patch", "resnet50_patch", "inception_v3_patch"]
OTHERS = ["mass_fpn", "mass_look", "retinanet_resnet50_fpn", "transres_unet", "three_branch_resnet50"]
EVERY = [*SEGMENTERS, *PATCH_CLASSIFIERS, *OTHERS]


def trainable(network: "nn.Module") -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def part_of(network: "nn.Module", path: str) -> "nn.Module":
    return network.get_submodule(path)


@pytest.mark.parametrize("name", EVERY)
def test_every_network_has_the_stated_number_of_parameters(name: str) -> None:
    from ai.networks.registry import ARCHITECTURES

    assert trainable(on_meta(name)) == ARCHITECTURES[name].parameters


@pytest.mark.parametrize(
    ("name", "path", "stated"),
    [
        ("resnet22_unet", "encoder", 2_799_536),
        ("resnet22_unet", "decoder", 4_773_025),
        ("resnet22_fpn", "decoder", 2_338_049),
        ("resnet34_unet", "encoder", 21_284_672),
        ("resnet34_unet", "decoder", 6_316_705),
        ("resnet34_fpn", "decoder", 2_460_929),
        ("resnet22_smp_unet", "network.decoder", 2_160_832),
        ("resnet22_smp_fpn", "network.decoder", 1_747_712),
        ("resnet34_smp_unet", "network.decoder", 3_151_552),
        ("resnet34_smp_fpn", "network.decoder", 1_870_592),
        ("vgg16_patch", "trunk", 14_714_688),
        ("resnet50_patch", "trunk", 23_508_032),
        ("inception_v3_patch", "trunk", 21_785_568),
        ("tile_unet", "", 91_238_241),
        ("transres_unet", "transformer.0", 5_253_120),
        ("three_branch_resnet50", "head", 3_310_593),
        ("three_branch_resnet50", "networks", 3 * 23_508_032),
    ],
)
def test_the_numbers_in_the_papers_are_ours(name: str, path: str, stated: int) -> None:
    assert trainable(part_of(on_meta(name), path)) == stated


def test_the_tile_u_net_has_the_stated_running_statistics_too() -> None:
    statistics = {k: v for k, v in on_meta("tile_unet").named_buffers() if not k.endswith("num_batches_tracked")}
    assert sum(v.numel() for v in statistics.values()) == 24_256


@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.parametrize("side", [448, 512])
def test_a_mask_has_the_size_of_its_image(name: str, side: int) -> None:
    assert on_meta(name)(nothing(2, 1, side, side)).shape == (2, 1, side, side)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_sides_need_not_be_equal(name: str) -> None:
    from ai.networks.registry import ARCHITECTURES

    step = ARCHITECTURES[name].multiple
    assert on_meta(name)(nothing(2, 1, 5 * step, 3 * step)).shape == (2, 1, 5 * step, 3 * step)


def test_the_transformer_u_net_takes_the_side_it_was_made_for() -> None:
    assert on_meta("transres_unet")(nothing(2, 1, 256, 256)).shape == (2, 1, 256, 256)
    assert on_meta("transres_unet", side=448)(nothing(2, 1, 448, 448)).shape == (2, 1, 448, 448)


@pytest.mark.parametrize("name", PATCH_CLASSIFIERS)
def test_a_patch_gets_two_logits_and_an_image_a_grid_of_them(name: str) -> None:
    network: Any = on_meta(name)
    assert network(nothing(3, 1, 224, 224)).shape == (3, 2)
    assert network.dense(nothing(1, 1, 512, 448)).shape == (1, 2, 10, 8)
    assert network.dense(nothing(1, 1, 255, 256)).shape == (1, 2, 1, 2)


@pytest.mark.parametrize("name", [*SEGMENTERS, *PATCH_CLASSIFIERS, "transres_unet"])
def test_every_parameter_learns(name: str) -> None:
    side = 256 if name == "transres_unet" else 224 if name in PATCH_CLASSIFIERS else 128
    network = on_meta(name)
    network(nothing(2, 1, side, side)).sum().backward()
    assert [k for k, p in network.named_parameters() if p.grad is None] == []


def test_every_parameter_of_the_three_branches_learns() -> None:
    network: Any = on_meta("three_branch_resnet50")
    region, mask = nothing(2, 1, 64, 64), nothing(2, 1, 64, 64)
    logits, branches = network(region, mask), network.branches(region, mask)
    assert (logits.shape, branches.shape) == ((2,), (2, 3))
    (logits.sum() + branches.sum()).backward()
    assert [k for k, p in network.named_parameters() if p.grad is None] == []


SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "plain_unet": ({"widths": [4, 8, 8]}, 16),
    "resnet22_unet": ({}, 64),
    "resnet22_fpn": ({}, 64),
    "tile_unet": ({"widths": [4, 4, 8, 8]}, 32),
    "transres_unet": ({"side": 32, "widths": [4, 4, 8, 16], "layers": 2, "heads": 2}, 32),
}
"""Networks that fit into a unit test, and the side of an image for them."""


@pytest.mark.parametrize("name", SMALL)
def test_the_weights_slope_is_finite_and_not_flat(name: str) -> None:
    import torch

    from ai.networks.registry import build

    torch.manual_seed(1)
    options, side = SMALL[name]
    network = build(name, options)
    network(torch.randn(2, 1, side, side)).square().mean().backward()
    slopes = {
        k: p.grad for k, p in network.named_parameters() if p.grad is not None and k.endswith(("weight", "places"))
    }
    assert [k for k, slope in slopes.items() if not slope.isfinite().all() or not slope.any()] == []


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_network_gives_the_same_mask(name: str) -> None:
    import torch
    from safetensors.torch import load, save

    from ai.networks.registry import build

    options, side = SMALL[name]
    first, second = build(name, options).train(), build(name, options)
    first(torch.randn(2, 1, side, side))  # moves the running statistics
    second.load_state_dict(load(save(first.state_dict())))
    pixels = torch.randn(1, 1, side, side)
    with torch.inference_mode():
        assert torch.equal(first.eval()(pixels), second.eval()(pixels))


def test_dropout_takes_whole_channels_and_only_in_training() -> None:
    import torch
    from torch import nn

    from ai.networks.registry import build

    network = build("resnet22_unet").eval()
    dropouts = [m for m in network.modules() if isinstance(m, nn.Dropout2d)]
    assert [d.p for d in dropouts] == [0.2]
    assert not [m for m in build("plain_unet", {"widths": [2, 2]}).modules() if isinstance(m, nn.Dropout2d)]
    pixels = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(pixels), network(pixels))
        dropouts[0].train()
        assert not torch.equal(network(pixels), network(pixels))


def test_resnet34_sees_the_grey_image_three_times() -> None:
    import torch

    from ai.networks.oulu import OuluNetwork

    seen: list[Tensor] = []
    network = OuluNetwork("resnet34", "fpn").eval()
    network.encoder.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        network(pixels)
    assert torch.equal(seen[0], torch.cat([pixels] * 3, 1))


def test_resnet22_halves_five_times() -> None:
    from ai.networks.resnet22 import ResNet22

    encoder: Any = ResNet22().to("meta")
    assert [(f.shape[1], f.shape[2], f.shape[3]) for f in encoder(nothing(1, 3, 448, 512))] == [
        (3, 448, 512),
        (16, 224, 256),
        (32, 112, 128),
        (64, 56, 64),
        (128, 28, 32),
        (256, 14, 16),
    ]
    encoder.make_dilated(16)
    assert encoder(nothing(1, 3, 448, 512))[-1].shape[2:] == (28, 32)


def test_resnet22_normalises_its_last_map_alone() -> None:
    import torch

    from ai.networks.resnet22 import ResNet22

    features = ResNet22().eval()(torch.randn(1, 3, 64, 64))
    assert [bool((f >= 0).all()) for f in features] == [False] * 5 + [True]
    assert len(ResNet22(depth=3)(torch.randn(1, 3, 64, 64))) == 4


def test_a_block_of_resnet22_projects_what_is_normalised() -> None:
    import torch
    import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

    from ai.networks.resnet22 import PreActivationBlock

    torch.manual_seed(1)
    block: Any = PreActivationBlock(2, 3, 2, projects=True).eval()
    block.bn1.running_mean += torch.tensor([0.5, -0.5])
    x = torch.randn(1, 2, 6, 6)
    active = ((x - block.bn1.running_mean[:, None, None]) / (1 + 1e-5) ** 0.5).relu()
    inner = (F.conv2d(active, block.conv1.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5).relu()
    shortcut = F.conv2d(active, block.downsample[0].weight, stride=2)
    torch.testing.assert_close(block(x), F.conv2d(inner, block.conv2.weight, padding=1) + shortcut)
    plain: Any = PreActivationBlock(2, 2).eval()
    torch.nn.init.zeros_(plain.conv2.weight)
    assert torch.equal(plain(x), x)


def test_the_u_net_decoder_begins_with_the_pooled_maximum_doubled_corner_to_corner() -> None:
    import torch

    from ai.networks.oulu import UNetDecoder

    seen: list[Tensor] = []
    decoder = UNetDecoder((1, 1, 1, 1, 1)).eval()
    decoder.centre.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    deepest = torch.arange(16.0).reshape(1, 1, 4, 4)  # pooled: 5, 7 over 13, 15
    with torch.inference_mode():
        logits = decoder([torch.zeros(1, 1, 64 >> n, 64 >> n) for n in range(4)] + [deepest])
    expected = torch.tensor([[5 + 8 * y / 3 + 2 * x / 3 for x in range(4)] for y in range(4)])
    torch.testing.assert_close(seen[0][0, 0], expected)
    assert logits.shape == (1, 1, 128, 128)


def test_the_fpn_decoder_sums_from_the_top_down_and_ends_corner_to_corner() -> None:
    import torch

    from ai.networks.oulu import FPNDecoder

    levels: list[Tensor] = []
    coarse: list[Tensor] = []
    decoder: Any = FPNDecoder((1, 1, 1, 1, 1)).eval()
    for lateral in decoder.laterals:
        torch.nn.init.ones_(lateral.weight)
        torch.nn.init.zeros_(lateral.bias)
    for head in decoder.heads:
        head.register_forward_pre_hook(lambda _, inputs: levels.append(inputs[0]))
    decoder.head.register_forward_hook(lambda _, __, output: coarse.append(output))
    features = [torch.full((1, 1, 32 >> n, 32 >> n), 10.0**n) for n in range(5)]
    with torch.inference_mode():
        logits = decoder(features)
    assert [sorted(set(level.flatten().tolist())) for level in levels] == [[10000], [11000], [11100], [11110]]
    assert logits.shape == (1, 1, 64, 64)
    first, second = coarse[0][0, 0, 0, :2]
    torch.testing.assert_close(logits[0, 0, 0, 1], first + 15 / 63 * (second - first))
    torch.testing.assert_close(logits[0, 0, -1, -1], coarse[0][0, 0, -1, -1])


def test_smp_learns_of_resnet22_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from segmentation_models_pytorch.encoders import encoders

    from ai.networks import resnet22

    monkeypatch.delitem(encoders, "resnet22", raising=False)
    before = set(encoders)
    spec = resnet22.__spec__
    assert spec is not None
    assert spec.loader is not None
    # A copy: were the module itself loaded again, whoever has its class would not know the new one.
    spec.loader.exec_module(module_from_spec(spec))
    assert set(encoders) == before
    assert resnet22.register() == resnet22.register() == "resnet22"
    assert set(encoders) == before | {"resnet22"}


def test_without_padding_the_dense_form_is_the_sliding_window() -> None:
    import torch
    from torch import nn

    classifier: Any = on_meta("resnet50_patch").to_empty(device="cpu")
    classifier.trunk = nn.Conv2d(
        3, 2048, 32, 32
    )  # the stride of the real ones, whose padding is what makes them differ
    nn.init.normal_(classifier.head[1].weight)
    nn.init.zeros_(classifier.head[1].bias)
    pixels = torch.randn(1, 1, 300, 256)
    with torch.inference_mode():
        dense = classifier.dense(pixels)
        for row in range(3):
            for column in range(2):
                window = pixels[..., 32 * row : 32 * row + 224, 32 * column : 32 * column + 224]
                torch.testing.assert_close(dense[..., row, column], classifier(window))


def test_three_branches_see_the_region_its_margin_and_its_shape() -> None:
    import torch
    from torch import nn

    class Mean(nn.Module):
        def forward(self, x: "Tensor") -> "Tensor":
            assert x.shape[1] == 3
            return x.mean((1, 2, 3))[:, None]

    network: Any = on_meta("three_branch_resnet50")
    network.networks = nn.ModuleList(Mean() for _ in range(3))
    network.outputs = nn.ModuleList(nn.Identity() for _ in range(3))
    region, mask = torch.full((1, 1, 4, 4), 8.0), torch.zeros(1, 1, 4, 4)
    mask[..., 0, :] = 1
    assert network.branches(region, mask).tolist() == [[8, 6, 2]]


def test_attention_is_as_wide_per_head_as_the_tokens() -> None:
    import torch
    from torch import nn

    from ai.networks.transres import Attention

    torch.manual_seed(1)
    ours, theirs = Attention(8, 1, 0.1).eval(), nn.MultiheadAttention(8, 1, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
        tokens = torch.randn(2, 5, 8)
        torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0])
    assert Attention(8, 4, 0.1).query.weight.shape == (32, 8)


def test_no_network_goes_untested() -> None:
    from ai.networks.registry import ARCHITECTURES

    assert set(EVERY) == set(ARCHITECTURES)


def test_an_unknown_network_or_option_is_refused_with_what_there_is() -> None:
    from ai.networks.registry import build

    with pytest.raises(UnknownArchitecture, match="'unet'; there are inception_v3_patch, mass_fpn"):
        build("unet")
    with pytest.raises(UnknownArchitecture, match="resnet22_fpn has no option 'drop'; it has dropout"):
        build("resnet22_fpn", {"drop": 0.1})
    with pytest.raises(UnknownArchitecture, match="resnet22_smp_fpn has no option 'dropout'; it has none"):
        build("resnet22_smp_fpn", {"dropout": 0.1})
