"""What networks said of images, kept on disk: once read, every way of making findings of it can be tried in seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ai.breast import Geometry, PreparedView, breast_geometry, breast_of, levels, normalised, prepare
from ai.datasets.records import Record
from ai.exam import ViewImage
from ai.models import Model
from ai.pixels import file_image
from ai.readers.mass_fpn import MassFPNCard, first_networks
from ai.readers.memory import Memory
from ai.readers.runtime import Runtime

Canvas = tuple[int, int]
Prepare = Callable[[ViewImage, Canvas], PreparedView]


def whole_picture(image: ViewImage, canvas: Canvas) -> PreparedView:
    """Prepare an image without cropping to the breast."""
    mask = breast_of(image)
    mirrored = breast_geometry(image, mask, canvas).mirrored
    geometry = replace(breast_geometry(image, np.ones_like(mask), canvas), mirrored=mirrored)
    return normalised(image, geometry, *levels(image, mask))


def as_stored(image: ViewImage, canvas: Canvas) -> PreparedView:
    """Prepare an image without stretching the breast's values: black and white of the file are -1 and 1."""
    return normalised(image, breast_geometry(image, breast_of(image), canvas), 0.0, 1.0)


def squeezed(image: ViewImage, canvas: Canvas) -> PreparedView:
    """Prepare an image without restoring the proportions of a film that was made square."""
    return prepare(replace(image, pixel_aspect=1.0), canvas)


@dataclass(frozen=True)
class Pass:
    """Networks over all images.

    Attributes
    ----------
    name
        Of its folder.
    alone
        Of the model's networks this one; None: all, and the mean of what they say.
    canvas
        Other than the card's.
    prepare
        How an image is brought onto it.
    both
        See it both ways up; else upright alone.
    outlined
        Over the images with outlined masses instead of those of the films.
    """

    name: str
    alone: int | None = None
    canvas: Canvas | None = None
    prepare: Prepare = prepare
    both: bool = True
    outlined: bool = False


PASSES = (
    Pass("shipped"),
    Pass("first", alone=0),
    Pass("second", alone=1),
    Pass("outlined", outlined=True),
    Pass("whole-picture", prepare=whole_picture, both=False),
    Pass("squeezed", prepare=squeezed, both=False),
    Pass("as-stored", prepare=as_stored, both=False),
    Pass("smaller", canvas=(640, 416), both=False),
    Pass("larger", canvas=(960, 608), both=False),
    Pass("first-outlined", alone=0, outlined=True),
    Pass("second-outlined", alone=1, outlined=True),
)


@dataclass(frozen=True, eq=False)
class Seen:
    """What networks said of one image; the first axis is upright, upside down (turned back).

    Attributes
    ----------
    mass, malignant
        Probabilities, shape (ways, rows, columns).
    malignancy
        Of the image, shape (ways,).
    centres, distances
        As in :class:`ai.readers.centres.CentreMaps`, with the ways before; None of a network without boxes.
    geometry
        The way back to the image.
    """

    mass: NDArray[np.float32]
    malignant: NDArray[np.float32]
    malignancy: NDArray[np.float32]
    centres: NDArray[np.float32] | None
    distances: NDArray[np.float32] | None
    geometry: Geometry


def run(
    one: Pass, model: Model, folder: Path, records: Sequence[Record], cache: Path, runtime: Runtime = Runtime.TORCH
) -> None:
    """Let networks see the images that they have not seen yet."""
    place = cache / one.name
    place.mkdir(parents=True, exist_ok=True)
    left = [record for record in records if not file_of(place, record).is_file()]
    if not left:
        return
    memory = Memory(torch.device("cpu"), runtime)
    card = model.part("architecture", MassFPNCard)
    networks = first_networks(model, memory)
    if one.alone is not None:
        networks = [networks[one.alone]]
    for record in track(left, one.name, console=Console(stderr=True)):
        prepared = one.prepare(file_image(folder / record.path, record.view), one.canvas or card.canvas)
        told = see(networks, prepared, both=one.both)
        path = file_of(place, record)
        with (scratch := path.with_suffix(".part")).open("wb") as file:
            np.savez(file, **told, **kept(prepared.geometry))
        scratch.rename(path)


@torch.inference_mode()
def see(networks: Sequence[torch.nn.Module], prepared: PreparedView, *, both: bool) -> dict[str, NDArray[Any]]:
    """Return the mean of what networks say; maps in half precision, which takes half the disk."""
    canvas = torch.from_numpy(prepared.pixels)
    ways = torch.stack([canvas, canvas.flip(0)] if both else [canvas])[:, None]
    outputs = [network(ways.contiguous(memory_format=torch.channels_last)) for network in networks]
    maps = _mean([each.maps.sigmoid() for each in outputs])
    told = {"mass": maps[:, 0], "malignant": maps[:, 1], "malignancy": _mean([o.image.sigmoid() for o in outputs])}
    if outputs[0].centres is not None:
        told["centres"] = _mean([each.centres.sigmoid() for each in outputs])
        told["distances"] = _mean([each.distances for each in outputs])
    result = {}
    for name, values in told.items():
        array = values.float().cpu().numpy().copy()
        if both and name != "malignancy":
            turned = array[1][[0, 3, 2, 1]] if name == "distances" else array[1]
            array[1] = turned[..., ::-1, :]
        result[name] = array.astype(np.float16) if name in ("mass", "malignant") else array
    return result


def _mean(said: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(tuple(said)).mean(0)


def kept(geometry: Geometry) -> dict[str, Any]:
    """Return a geometry as arrays."""
    return {name: np.array(getattr(geometry, name)) for name in ("shape", "crop", "mirrored", "scale", "canvas")}


def load(one: Pass, record: Record, cache: Path) -> Seen:
    """Return what a network said of an image."""
    with np.load(file_of(cache / one.name, record)) as told:
        arrays = {name: told[name].astype(np.float32) for name in told.files if told[name].ndim > 1}
        geometry = Geometry(
            tuple(told["shape"].tolist()),
            tuple(told["crop"].tolist()),
            bool(told["mirrored"]),
            tuple(told["scale"].tolist()),
            tuple(told["canvas"].tolist()),
        )
        malignancy = told["malignancy"].astype(np.float32)
    return Seen(
        arrays["mass"], arrays["malignant"], malignancy, arrays.get("centres"), arrays.get("distances"), geometry
    )


def file_of(place: Path, record: Record) -> Path:
    """Return where an image's outputs are."""
    return place / f"{Path(record.file).stem}.npz"
