"""The detector on a canvas, and which of its boxes stay."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def test_retinanet_learns_and_finds_on_its_canvas() -> None:
    import torch

    from ai.networks.retinanet import MassRetinaNet

    torch.manual_seed(1)
    network = MassRetinaNet(canvas=(96, 64))
    pixels = torch.rand(2, 1, 96, 64)
    losses = network.losses(pixels, [torch.tensor([[8.0, 10, 40, 44]]), torch.zeros(0, 4)])
    assert set(losses) == {"classification", "bbox_regression"}
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert [k for k, p in network.named_parameters() if p.grad is None] == []
    network.eval()
    network.network.score_thresh = 0.0
    with torch.inference_mode():
        found = network(pixels)
    for image in found:
        boxes, scores = image["boxes"], image["scores"]
        assert len(boxes) == len(scores) > 0
        assert bool((boxes[:, 0::2] <= 64).all() and (boxes[:, 1::2] <= 96).all() and (boxes >= 0).all())
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        assert overlaps(boxes.tolist()) <= 0.5


@pytest.mark.parametrize(("background", "mass", "some"), [(5.0, -9.0, False), (-9.0, 5.0, True)])
def test_retinanet_gives_masses_and_no_background(background: float, mass: float, some: bool) -> None:  # noqa: FBT001
    import torch

    from ai.networks.retinanet import MassRetinaNet

    network: Any = MassRetinaNet(canvas=(64, 64)).eval()
    with torch.inference_mode():
        network.network.head.classification_head.cls_logits.bias.copy_(torch.tensor([background, mass] * 9))
        found = network(torch.rand(1, 1, 64, 64))[0]
    assert (len(found["boxes"]) > 0) is some


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / both if both else 0.0


def overlaps(boxes: list[list[float]]) -> float:
    """Return the largest intersection over union of two boxes."""
    return max((iou(a, b) for n, a in enumerate(boxes) for b in boxes[:n]), default=0.0)


def test_of_two_boxes_that_overlap_too_much_the_better_stays() -> None:
    import torch

    from ai.networks.nms import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 10]])
    scores = torch.tensor([0.5, 0.9, 0.1, 0.5])
    assert nms(boxes, scores, 0.5).tolist() == [1, 0, 2]  # 0.5 does not exceed 0.5; of equals the first
    assert nms(boxes, scores, 0.49).tolist() == [1, 2]
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []


CELLS = st.integers(0, 6)
BOXES = st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS, st.integers(1, 4)), max_size=8)


@settings(deadline=None)
@given(BOXES, st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_suppression_is_the_greedy_rule(corners: list[tuple[int, ...]], threshold: float) -> None:
    import torch

    from ai.networks.nms import nms

    boxes = [[float(x), float(y), float(x + w), float(y + h)] for x, y, w, h, _ in corners]
    scores = [c[-1] / 4 for c in corners]
    stays: list[int] = []
    for n in sorted(range(len(boxes)), key=lambda n: -scores[n]):
        if all(iou(boxes[n], boxes[m]) <= threshold for m in stays):
            stays.append(n)
    assert nms(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), threshold).tolist() == stays
