"""The lines of the house table: which system is trained by which recipe, and what its paper prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ai.training.recipe import open_recipe


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name
        Of its folder.
    title
        For people.
    recipe
        What is trained; "" for a model that is there.
    cost
        Seconds per example of training (forward, loss, backward, step, in bfloat16, batches of up to 8) on two cores of
        an AMD EPYC with AVX512-BF16; it shares out ``--seconds``.
    published
        Recipe that has the paper's figures.
    points
        False positives per image to sensitivity as published, for the picture.
    start
        Keep the recipe's start instead of a random one.
    slow
        Reads so slowly that ``--slow-images`` are scored.
    """

    name: str
    title: str
    recipe: str
    cost: float
    published: str = ""
    points: Mapping[float, float] = field(default_factory=dict)
    start: bool = False
    slow: bool = False


AGARWAL: Final = {0.25: 0.87, 0.44: 0.90, 0.5: 0.92, 0.58: 0.93, 0.79: 0.95, 1.67: 0.98}
"""Figure 3 of the paper: INbreast, by way of CBIS-DDSM, IoU above 0.2."""
ROWS: Final = (
    Row("oulu-r22unet", "Oulu thesis, ResNet22 U-Net, FT .7", "thesis-table-5/r22unet-ft07", 0.48),
    Row("oulu-r22fpn", "Oulu thesis, ResNet22 FPN, FT .7", "thesis-table-5/r22fpn-ft07", 0.33),
    Row("oulu-r34unet", "Oulu thesis, ResNet34 U-Net, FT .7", "thesis-table-5/r34unet-ft07", 0.86),
    Row("oulu-r34fpn", "Oulu thesis, ResNet34 FPN, FT .7", "thesis-table-5/r34fpn-ft07", 0.59),
    Row("oulu-unet", "Oulu thesis, plain U-Net, FT .5", "thesis-table-5/unet-ft05", 3.3, slow=True),
    Row("spie-r34unet", "Isosalo et al., ResNet34 U-Net", "spie-table-2/r34unet", 0.86),
    Row(
        "agarwal-vgg16",
        "Agarwal et al., VGG16",
        "agarwal-copies/vgg16",
        0.44,
        "agarwal-table-2/vgg16-random",
        slow=True,
    ),
    Row(
        "agarwal-resnet50",
        "Agarwal et al., ResNet50",
        "agarwal-copies/resnet50",
        0.12,
        "agarwal-table-2/resnet50-random",
        slow=True,
    ),
    Row(
        "agarwal-inception",
        "Agarwal et al., InceptionV3",
        "agarwal-copies/inception-v3",
        0.1,
        "agarwal-table-3/cbis-ddsm",
        AGARWAL,
        slow=True,
    ),
    Row(
        "marita",
        "Marita et al., U-Net on tiles",
        "marita-table-1/copies-of-800-pixels",
        0.6,
        "marita-table-1/bce-dice-dropout",
        {3.65: 0.77},
        slow=True,
    ),
    # Its three thresholds as points of a curve: 698, 374 and 112 regions in 361 images, 260, 214 and 98 of which hit one of
    # 378 masses.
    Row(
        "madsen",
        "Madsen, three networks",
        "madsen-copies",
        0.4,
        "madsen-chapter-8/as-published",
        {1.21: 0.69, 0.44: 0.57, 0.04: 0.26},
        slow=True,
    ),
    Row("ours-random", "ours, random start", "mass-fpn/random", 0.39),
    Row("ours-lite0", "ours, EfficientNet-Lite0 start", "mass-fpn/lite0", 0.39, start=True),
    Row("ours-shipped", "ours, mass-fpn-boxes (32 epochs of 979 images, on a GPU)", "", 0.0),
)


def published(row: Row) -> dict[str, Any]:
    """Return a paper's figures by data set."""
    name = row.published or row.recipe
    return {k: dict(v) for k, v in open_recipe(name).published.items()} if name else {}
