"""Networks whose convolutions do what the batch normalisation after them did."""

from typing import Any

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def a_network(name: str, **options: Any) -> Any:
    """Make a network whose batch normalisations have seen something."""
    import torch
    from torch import nn

    from ai.networks.registry import build

    torch.manual_seed(3)
    network = build(name, options).eval()
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            for tensor, least, most in (
                (each.running_mean, -0.2, 0.2),
                (each.running_var, 0.5, 2),
                (each.weight, 0.5, 2),
                (each.bias, -0.2, 0.2),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, least, most)
        if isinstance(each, nn.Linear | nn.Conv2d) and not each.weight.any():  # as a last layer begins
            nn.init.normal_(each.weight)
    return network


def normalisations(network: Any) -> int:
    from torch import nn

    return sum(isinstance(each, nn.BatchNorm2d) for each in network.modules())


@pytest.mark.parametrize("name", ["mass_fpn", "mass_look"])
def test_a_fused_network_says_the_same_without_normalising(name: str) -> None:
    import torch

    from ai.networks.fused import fused

    network = a_network(name, **({"boxes": True} if name == "mass_fpn" else {}))
    inputs = [torch.rand(2, 1, 64, 64)] + ([torch.rand(2, 2)] if name == "mass_look" else [])
    with torch.inference_mode():
        before = network(*inputs)
        assert normalisations(network) == 49
        assert fused(network) is network
        after = network(*inputs)
    assert normalisations(network) == 0
    for one, other in zip(before, after, strict=True):
        assert one.std() > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_another_encoder_stays_as_it_is() -> None:
    from ai.networks.fused import fused

    network = a_network("mass_fpn", encoder="resnet18")
    before = normalisations(network)
    assert before > 0
    assert normalisations(fused(network)) == before


def test_maps_are_added_as_smp_adds_them() -> None:
    import torch
    from segmentation_models_pytorch.decoders.fpn.decoder import MergeBlock

    decoder = a_network("mass_fpn").fpn.decoder
    maps = [torch.rand(1, 3, 4, 5) for _ in range(4)]
    torch.testing.assert_close(decoder.merge(maps), MergeBlock("add")(maps))
