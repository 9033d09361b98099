"""Courses cut down to a number of examples."""

from typing import Any

import pytest

from ai.errors import InvalidRecipe
from ai.training.budget import examples_seen, within
from ai.training.phases import Part


def a_part(*phases: dict[str, Any], **changes: Any) -> Part:
    told = [{"loss": "bce", "epochs": 80, "learning_rate": 1e-4, **phase} for phase in phases or ({},)]
    return Part.model_validate({"network": "plain_unet", "batch": 32, "phases": told} | changes)


def test_it_counts_whole_batches_of_all_epochs() -> None:
    assert examples_seen(a_part(), 1000) == 80 * 31 * 32
    assert examples_seen(a_part(epoch_examples=100), 1000) == 80 * 3 * 32
    assert examples_seen(a_part({"epochs": 20}, {"epochs": 60}), 64) == 80 * 64


def test_a_course_within_the_budget_is_not_touched() -> None:
    part = a_part()
    assert within([part], 80 * 992, {"network": 1000}) == (part,)
    assert within([part], 10**9, {"network": 1000}) == (part,)


def test_epochs_go_first() -> None:
    (part,) = within([a_part()], 20 * 992, {"network": 1000})
    assert (part.epochs, part.epoch_examples) == (20, 992)
    assert examples_seen(part, 1000) == 20 * 992


def test_then_epochs_become_shorter() -> None:
    # 3,000 examples are 93 steps; 10 epochs of 9.
    (part,) = within([a_part()], 3000, {"network": 1000})
    assert (part.epochs, part.epoch_examples, part.validation_examples) == (10, 9 * 32, 9 * 32)
    (part,) = within([a_part(validation_examples=50)], 3000, {"network": 1000})
    assert part.validation_examples == 50
    # Three steps: three epochs of one.
    (part,) = within([a_part()], 100, {"network": 1000})
    assert (part.epochs, part.epoch_examples) == (3, 32)


@pytest.mark.parametrize("budget", [32, 33, 500, 4096, 9999, 50_000, 79_359])
def test_the_budget_is_never_exceeded_and_mostly_used(budget: int) -> None:
    (part,) = within([a_part()], budget, {"network": 1000})
    seen = examples_seen(part, 1000)
    assert seen <= budget
    assert seen > budget / 2


def test_phases_milestones_and_frozen_epochs_keep_their_places() -> None:
    # SPIE: 20 + 60 epochs, the rate down after 40, 50 and 60 of all.
    spie = a_part(
        {"epochs": 20, "frozen": ["encoder"], "frozen_epochs": 2},
        {"epochs": 60, "schedule": "steps", "milestones": [20, 30, 40]},
    )
    (part,) = within([spie], 992 * 16, {"network": 1000})
    first, second = part.phases
    assert (first.epochs, first.frozen, first.frozen_epochs) == (4, ("encoder",), 1)
    assert (second.epochs, second.milestones) == (12, (4, 6, 8))
    assert [p.learning_rate for p in part.phases] == [1e-4, 1e-4]


def test_milestones_that_fall_together_count_once_and_none_is_left_in_a_single_epoch() -> None:
    thesis = a_part({"epochs": 50, "schedule": "steps", "milestones": [20, 21, 40]})
    (part,) = within([thesis], 3000, {"network": 1000})
    assert part.phases[0].milestones == (4, 8)
    (part,) = within([thesis], 32, {"network": 1000})
    assert (part.phases[0].epochs, part.phases[0].schedule, part.phases[0].milestones) == (1, "constant", ())


def test_what_was_frozen_for_a_while_is_not_frozen_for_all_of_a_single_epoch() -> None:
    (part,) = within([a_part({"frozen": ["encoder"], "frozen_epochs": 2})], 32, {"network": 1000})
    assert part.phases[0].frozen == ()
    (part,) = within([a_part({"frozen": ["encoder"]})], 32, {"network": 1000})
    assert part.phases[0].frozen == ("encoder",)


def test_networks_keep_their_shares() -> None:
    parts = [
        a_part({"epochs": 20}, role="detector", batch=8),
        a_part({"epochs": 30}, {"epochs": 30}, role="classifier", batch=8),
    ]
    # 16,000 and 24,000 examples as planned.
    detector, classifier = within(parts, 4000, {"detector": 800, "classifier": 400})
    assert (examples_seen(detector, 800), examples_seen(classifier, 400)) == (1600, 2400)
    assert [p.epochs for p in classifier.phases] == [5, 5]


def test_a_budget_without_a_step_for_each_phase_is_refused() -> None:
    parts = [a_part({"epochs": 10}, {"epochs": 10}, role="one"), a_part({"epochs": 60}, role="two")]
    with pytest.raises(InvalidRecipe, match="255 examples has no step for each phase of part one; give 256 or more"):
        within(parts, 255, {"one": 320, "two": 320})
    one, two = within(parts, 256, {"one": 320, "two": 320})
    assert examples_seen(one, 320) + examples_seen(two, 320) <= 256


def test_a_part_without_a_batch_is_left_to_the_loop_to_refuse() -> None:
    parts = [a_part(role="one"), a_part(role="two")]
    assert within(parts, 3200, {"one": 31, "two": 320})[0] == parts[0]
