"""How long work goes on is told in a log too, and not at every step."""

import pytest

from node.cli.bars import EVERY, Bars


@pytest.fixture
def seconds() -> list[float]:
    return [0.0]


def test_a_log_gets_a_line_a_minute(
    seconds: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", False)
    with Bars(lambda: seconds[0]) as shown:
        task, unknown = shown.add_task("epoch [1], loss 9.250", total=300), shown.add_task("opening", total=None)
        for step in range(1, 151):
            seconds[0] += 1
            shown.update(task, completed=step)
        shown.advance(unknown)
        seconds[0] += 30
        shown.advance(unknown)
        told = capsys.readouterr().err.splitlines()
    assert told == ["epoch [1], loss 9.250: 60 of 300", "epoch [1], loss 9.250: 120 of 300", "opening: 2"]


def test_a_window_gets_bars_alone(
    seconds: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with Bars(lambda: seconds[0]) as shown:
        task = shown.add_task("training", total=2)
        seconds[0] += 10 * EVERY
        shown.update(task, completed=1)
    told = capsys.readouterr().err
    assert "training" in told
    assert "training: 1 of 2" not in told
