"""The table and the picture of a training run, and files that are whole or not there."""

import errno
import os
import threading
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from ai.errors import InvalidHistory, Unwritable
from ai.training.ahead import ahead
from ai.training.durable import whole_file
from ai.training.history import Epoch, draw_curves, kept_epochs, read_history, write_history


def a_history(*losses: tuple[int, float | None]) -> list[Epoch]:
    """Return epochs of (phase, validation loss)."""
    rows: list[Epoch] = []
    for phase, validation in losses:
        epoch = 1 + sum(row.phase == phase for row in rows)
        rows.append(Epoch(phase, epoch, 0.5 / (1 + len(rows)), validation, 1e-3, 12.5, 640))
    return rows


def test_each_phase_keeps_the_first_of_its_lowest() -> None:
    history = a_history((1, 0.5), (1, 0.3), (1, 0.3), (2, 0.9), (2, 0.4), (2, 0.6))
    assert kept_epochs(history) == (1, 4)
    assert kept_epochs(history, "last") == (2, 5)
    assert kept_epochs(a_history((1, None), (1, None))) == (1,)
    assert kept_epochs([]) == ()


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = (Epoch(1, 1, 0.1 + 0.2, None, 1e-4, 1 / 3, 8), Epoch(2, 1, -0.25, 1e-17, 1e-4, 0.5, 8))
    write_history(history, tmp_path / "history.csv")
    head = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert head == "phase,epoch,training,validation,learning_rate,seconds,examples"
    assert read_history(tmp_path / "history.csv") == history


@pytest.mark.parametrize("content", ["phase,epoch\n1,1\n", "phase,epoch,training\n1,one,0.5\n"])
def test_another_table_is_no_history(tmp_path: Path, content: str) -> None:
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(InvalidHistory, match=r"history\.csv"):
        read_history(tmp_path / "history.csv")
    with pytest.raises(InvalidHistory, match="nowhere"):
        read_history(tmp_path / "nowhere")


@pytest.mark.parametrize("lowest", [0.1, -0.4])
def test_the_curves_are_drawn(tmp_path: Path, lowest: float) -> None:
    draw_curves(a_history((1, 0.5), (1, lowest), (2, 0.4)), tmp_path / "curves.png", "network: toy")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None
    assert picture.shape == (540, 960, 3)
    # Both lines are there, in their colours (blue, green, red).
    for colour in ((178, 114, 0), (0, 94, 213)):
        assert (np.abs(picture.astype(int) - colour).max(2) < 8).sum() > 300


def test_a_file_that_was_not_finished_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(Unwritable, match="file: No space left on device"), whole_file(path) as file:  # noqa: PT012
        file.write(b"after")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(Unwritable, match="file: No space left on device"), whole_file(path) as file:  # noqa: PT012
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:  # as torch.save does
            raise RuntimeError("unexpected pos 768 vs 662")
    with pytest.raises(RuntimeError, match="another"), whole_file(path):
        raise RuntimeError("another")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_what_is_made_ahead_comes_in_order_and_no_further_than_needed() -> None:
    assert list(ahead(lambda i: i * i, 20, 4)) == [i * i for i in range(20)]
    assert list(ahead(lambda i: i, 0, 4)) == []
    made: list[int] = []
    others = set(threading.enumerate())
    with closing(ahead(made.append, 1000, 2)) as results:
        next(results)
    assert len(made) <= 4
    assert not [t for t in set(threading.enumerate()) - others if "ThreadPool" in t.name]


def test_what_fails_ahead_fails_at_its_turn() -> None:
    results = ahead(lambda i: 1 // (2 - i), 5, 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
