"""Cards and weights that the readers of Oulu and of Marita et al. refuse."""

from pathlib import Path
from typing import Any

import pytest

from ai.errors import InvalidCard, UnknownArchitecture, UnusableWeights
from tests.models import untrained
from tests.seed_segmentation import MARITA, OULU, THRESHOLDS, bright, loaded, oulu

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_networks_that_give_masks_are_those_that_say_so() -> None:
    from ai.networks.registry import ARCHITECTURES
    from tests.unit.test_networks import SEGMENTERS

    assert {name for name, known in ARCHITECTURES.items() if known.masks} == {*SEGMENTERS, "transres_unet"}


BAD_ARCHITECTURES = [
    ("oulu", {"canvas": None}, r"architecture\.canvas: "),
    ("oulu", {"mean": None}, r"architecture\.mean: "),
    ("oulu", {"std": 0}, r"architecture\.std: "),
    ("oulu", {"std": None}, r"architecture\.std: "),
    ("oulu", {"network": None}, r"architecture\.network: "),
    ("oulu", {"network": "vgg16_patch"}, r"architecture\.network: vgg16_patch gives no masks"),
    ("oulu", {"network": "mass_fpn"}, r"architecture\.network: mass_fpn gives no masks"),
    ("oulu", {"canvas": [512, 500]}, r"architecture\.canvas: plain_unet takes multiples of 16, not 512 x 500"),
    ("oulu", {"canvas": [0, 512]}, r"architecture\.canvas\.0: "),
    ("oulu", {"canvas": 512}, r"architecture\.canvas: "),
    ("oulu", {"encoder": "resnet22"}, r"architecture\.encoder: "),
    ("marita", {"tile": None}, r"architecture\.tile: "),
    ("marita", {"reduction": None}, r"architecture\.reduction: "),
    ("marita", {"reduction": 0}, r"architecture\.reduction: "),
    ("marita", {"tile": 130, "reduction": 4}, r"architecture: .*tile must be an even multiple of reduction"),
    ("marita", {"tile": 96}, r"architecture\.tile: tile_unet takes multiples of 64, not 48 x 48"),
    ("marita", {"overlapped": "maybe"}, r"architecture\.overlapped: "),
]


@pytest.mark.parametrize(("reader", "changes", "told"), BAD_ARCHITECTURES)
def test_a_card_with_a_wrong_architecture_is_refused_with_the_key(
    tmp_path: Path, reader: str, changes: dict[str, Any], told: str
) -> None:
    base, name = (OULU, "plain_unet") if reader == "oulu" else (MARITA, "tile_unet")
    card = {k: v for k, v in (base | changes).items() if v is not None}
    with pytest.raises(InvalidCard, match=rf"card\.toml: {told}"):
        loaded(tmp_path, reader, card, THRESHOLDS | ({"dark": 0.1} if reader == "marita" else {}), bright(name, 1, 1))


@pytest.mark.parametrize(
    ("reader", "thresholds", "key"),
    [
        ("oulu", {"candidate": 0.5}, "mass"),
        ("oulu", {"mass": 0.5}, "candidate"),
        ("oulu", THRESHOLDS | {"candidate": 1.5}, "candidate"),
        ("oulu", THRESHOLDS | {"mass": float("nan")}, "mass"),
        ("oulu", THRESHOLDS | {"smallest": 0}, "smallest"),
        ("oulu", THRESHOLDS | {"dark": 0.1}, "dark"),
        ("marita", THRESHOLDS, "dark"),
        ("marita", THRESHOLDS | {"dark": 200}, "dark"),
    ],
)
def test_a_card_with_wrong_thresholds_is_refused_with_the_key(
    tmp_path: Path, reader: str, thresholds: dict[str, float], key: str
) -> None:
    base, name = (OULU, "plain_unet") if reader == "oulu" else (MARITA, "tile_unet")
    with pytest.raises(InvalidCard, match=rf"card\.toml: thresholds\.{key}: "):
        loaded(tmp_path, reader, base, thresholds, bright(name, 1, 1))


def test_networks_and_options_that_are_not_known_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitecture, match="'unet'"):
        oulu(tmp_path / "a", network="unet")
    with pytest.raises(UnknownArchitecture, match="'depth'"):
        oulu(tmp_path / "b", options={"depth": 3})
    with pytest.raises(InvalidCard, match="options of plain_unet: "):
        oulu(tmp_path / "c", options={"widths": "wide"})


def test_a_network_that_was_made_for_another_size_is_refused_before_it_reads(tmp_path: Path) -> None:
    options = {"side": 32, "widths": [8, 8, 8, 8, 16], "layers": 1}
    card = OULU | {"network": "transres_unet", "options": options, "canvas": [64, 64]}
    with pytest.raises(InvalidCard, match=r"architecture\.canvas: "):
        loaded(tmp_path, "oulu", card, THRESHOLDS, untrained("transres_unet", options))


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnusableWeights, match=r"fold-1\.safetensors: "):
        oulu(tmp_path / "other", bright("plain_unet", 1, 1), untrained("plain_unet", {"widths": [2]}))
