"""What a student learns from teachers."""

from typing import TYPE_CHECKING

import pytest

from ai.errors import InvalidCard

if TYPE_CHECKING:
    from ai.networks.mass_fpn import MassOutputs
    from ai.training.learners.mass_student import Said

CANVAS = (64, 32)


def said(centre: tuple[int, int] = (8, 4), *, mass: float = 0.9, image: float = 0.8, reach: float = 12.0) -> "Said":
    """Return what teachers say of one mass, probabilities; the cell of its centre is named by row and column."""
    import torch

    from ai.training.learners.mass_student import Said

    maps = torch.full((1, 2, *CANVAS), 0.01)
    row, column = 4 * centre[0], 4 * centre[1]
    maps[:, :, row - 4 : row + 4, column - 4 : column + 4] = mass
    centres = torch.full((1, 16, 8), 0.01)
    centres[0, centre[0], centre[1]] = 0.9
    return Said(maps, torch.tensor([image]), centres, torch.full((1, 4, 16, 8), reach))


def logits(told: "Said") -> "MassOutputs":
    from ai.networks.mass_fpn import MassOutputs

    return MassOutputs(told.maps.logit(), told.image.logit(), told.centres.logit(), told.distances)


@pytest.mark.parametrize("wrong", [{"centre": (3, 2)}, {"mass": 0.2}, {"image": 0.1}, {"reach": 6.0}])
def test_the_loss_is_least_where_the_student_says_the_same(wrong: dict[str, float]) -> None:
    from ai.training.learners.mass_student import teacher_loss, with_boxes

    truth = said()
    other = with_boxes(logits(said(**wrong)))  # type: ignore[arg-type]
    assert teacher_loss(with_boxes(logits(truth)), truth) < teacher_loss(other, truth) - 0.01


def test_teachers_are_averaged_as_the_reader_averages_them() -> None:
    import torch

    from ai.training.learners.mass_student import mean_of

    told = mean_of([logits(said(image=0.8, reach=10.0)), logits(said(image=0.2, reach=20.0))])
    assert told.image.tolist() == pytest.approx([0.5])
    assert torch.equal(told.distances, torch.full((1, 4, 16, 8), 15.0))
    with pytest.raises(InvalidCard, match="boxes"):
        mean_of([logits(said())._replace(centres=None, distances=None)])


def test_what_is_said_is_the_same_place_on_fewer_pixels() -> None:
    from ai.training.learners.mass_student import on_canvas

    told = on_canvas(said((8, 4)), (32, 16), 0.5)
    assert told.maps.shape == (1, 2, 32, 16)
    assert divmod(int(told.centres[0].argmax()), 4) == (4, 2)
    assert float(told.centres.max()) == pytest.approx(0.9), "a centre stays as sure"
    assert told.distances[0, :, 4, 2].tolist() == [6.0] * 4
    assert float(told.maps[0, 0, 16, 8]) > 0.5 > float(told.maps[0, 0, 28, 2])


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_labels_have_the_rest_of_the_loss_on_the_students_canvas(share: float) -> None:
    import torch
    from torch import nn

    from ai.networks.mass_fpn import MassOutputs
    from ai.training.learners.mass_fpn import label_loss
    from ai.training.learners.mass_student import Taught, on_canvas, reduced, teacher_loss, with_boxes

    class Says(nn.Module):
        def __init__(self, answer: MassOutputs) -> None:
            super().__init__()
            self.answer = answer

        def forward(self, pixels: torch.Tensor) -> MassOutputs:
            self.shape = tuple(pixels.shape)
            return self.answer

    teacher, student = Says(logits(said())), Says(logits(on_canvas(said((8, 4), image=0.3), (32, 16), 0.5)))
    box = torch.tensor([[[4.0, 20.0, 28.0, 44.0]]])
    mass = torch.zeros(1, *CANVAS)
    mass[:, 20:44, 4:28] = 1
    batch = torch.zeros(1, 1, *CANVAS), mass, torch.tensor([1.0]), torch.tensor([1.0]), box
    loss = float(Taught([teacher], (32, 16), share)(student, batch))
    assert (teacher.shape, student.shape) == ((1, 1, 64, 32), (1, 1, 32, 16))
    small = (reduced(mass[:, None], (32, 16))[:, 0] > 0.5).float()
    assert small.sum() == mass.sum() / 4
    taught = float(teacher_loss(with_boxes(student.answer), on_canvas(said(), (32, 16), 0.5)))
    labels = float(label_loss(student.answer, small, batch[2], batch[3], box / 2))
    assert loss == pytest.approx(share * taught + (1 - share) * labels, rel=1e-5)
