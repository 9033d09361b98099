"""Networks for tests that answer by what stands in their input, under names that a card can give."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor, nn


def _kinds() -> dict[str, Any]:  # noqa: C901 (four classes, none of them complex)
    """Make the classes; torch is imported by tests that read alone."""
    import torch
    from torch import Tensor, nn

    class CentrePatch(nn.Module):
        """A mass where the centre of a normalised patch is above ``middle``."""

        def __init__(self) -> None:
            super().__init__()
            self.slope, self.middle, self.bias = (nn.Parameter(torch.zeros(())) for _ in range(3))
            self.seen = 0

        def forward(self, patches: Tensor) -> Tensor:
            self.seen += len(patches)
            logit = self.slope * (patches[:, 0, 112, 112] - self.middle) + self.bias
            return torch.stack([torch.zeros_like(logit), logit], 1)

    class BrightBox(nn.Module):
        """One box, ``margin`` wider on each side than what is above ``level``, or else the ``corners`` given."""

        def __init__(self) -> None:
            super().__init__()
            self.level, self.margin, self.score = (nn.Parameter(torch.zeros(())) for _ in range(3))
            self.corners = nn.Parameter(torch.zeros(4))

        def forward(self, pixels: Tensor) -> list[dict[str, Tensor]]:
            return [self._found(one[0]) for one in pixels]

        def _found(self, one: Tensor) -> dict[str, Tensor]:
            rows, columns = torch.nonzero(one > self.level, as_tuple=True)
            box = self.corners[None] if self.corners.any() else torch.zeros(0, 4)
            if len(rows):
                first, last = torch.stack([columns.min(), rows.min()]), torch.stack([columns.max(), rows.max()])
                box = torch.cat([first - self.margin, last + 1 + self.margin])[None]
            return {"boxes": box, "scores": self.score.expand(len(box))}

    class BrightMask(nn.Module):
        """A mask of what is above ``middle``."""

        def __init__(self) -> None:
            super().__init__()
            self.slope, self.middle = (nn.Parameter(torch.zeros(())) for _ in range(2))

        def forward(self, pixels: Tensor) -> Tensor:
            return self.slope * (pixels - self.middle)

    class Contrast(nn.Module):
        """As malignant as the mean of the region within the mask, plus ``bias``, and ``area`` for the mask's."""

        def __init__(self) -> None:
            super().__init__()
            self.slope, self.bias, self.area = (nn.Parameter(torch.zeros(())) for _ in range(3))

        def forward(self, region: Tensor, mask: Tensor) -> Tensor:
            inside = (region * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
            return self.slope * inside + self.bias + self.area * mask.mean((1, 2, 3))

    return {"centre_patch": CentrePatch, "bright_box": BrightBox, "bright_mask": BrightMask, "contrast": Contrast}


_MADE: dict[str, Any] = {}


def network(name: str, **values: float | Sequence[float]) -> Any:
    """Make one of these networks with the given weights."""
    import torch

    if not _MADE:
        _MADE.update(_kinds())
    made = _MADE[name]()
    for key, value in values.items():
        getattr(made, key).data = torch.tensor(value)
    return made


def centre_patch(slope: float, middle: float, bias: float = 0.0) -> Any:
    """Make a patch classifier; it counts the patches that it has ``seen``."""
    return network("centre_patch", slope=float(slope), middle=float(middle), bias=float(bias))


@contextmanager
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let cards name these networks, on one thread: two wait for each other on a busy machine."""
    import torch

    from ai.networks import registry

    network("contrast")
    multiples: Mapping[str, int] = {"centre_patch": 224}
    for name, kind in _MADE.items():
        architecture = registry.Architecture(kind, 0, multiples.get(name, 1), masks=name == "bright_mask")
        monkeypatch.setitem(registry.ARCHITECTURES, name, architecture)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_meta(name: str, **options: Any) -> "nn.Module":
    """Make a network without memory for its weights."""
    import torch

    from ai.networks.registry import build

    with torch.device("meta"):
        return build(name, options).to("meta")  # smp makes a first convolution anew, on the CPU


def nothing(*shape: int) -> "Tensor":
    import torch

    return torch.empty(shape, device="meta")
