"""Reading an exam's files with its views decoded at once: the same as one after the other, only sooner."""

import errno
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from time import perf_counter, sleep

import pytest
from pydicom import Dataset
from structlog.contextvars import bound_contextvars, get_contextvars

import node.analysis
from ai.exam import STANDARD_VIEWS, View, ViewImage
from ai.pixels import view_image
from node.analysis import Source, analyse
from tests.builders import altered
from tests.chain import FakeReader
from tests.doors import phantom_images

VIEWS = dict(zip(STANDARD_VIEWS, phantom_images(), strict=True))


def an_exam(folder: Path) -> list[Source]:
    """Return the four views, of which the second came broken at first, and the third has no breast once it is read."""
    second, third = STANDARD_VIEWS[1:3]
    sources = []

    def add(image: Dataset, view: View) -> None:
        path = folder / f"{image.SOPInstanceUID}.dcm"
        image.save_as(path, enforce_file_format=True)
        sources.append(Source(str(image.SOPInstanceUID), path, view))

    for view, image in VIEWS.items():
        if view == second:
            add(altered(image, SOPInstanceUID=f"{image.SOPInstanceUID}.1", PixelData=b"\0\0"), view)
        if view == third:
            black = bytes(len(image.PixelData))
            add(altered(image, SOPInstanceUID=f"{image.SOPInstanceUID}.1", PixelData=black), view)
        add(image, view)
    return sources


def test_views_decoded_at_once_are_what_they_are_one_by_one(tmp_path: Path) -> None:
    sources = an_exam(tmp_path)
    one, four = (analyse(FakeReader(), sources, threads=threads) for threads in (1, 4))
    assert one.findings
    assert four.findings
    told = [[(i.uid, i.view) for i in each.findings.images] for each in (one, four) if each.findings]
    assert told[0] == told[1] == [(str(image.SOPInstanceUID), view) for view, image in VIEWS.items()]
    assert list(one.not_read.items()) == list(four.not_read.items())
    assert len(one.not_read) == 2
    assert list(one.pictures) == list(four.pictures)
    assert list(one.distances) == [str(image.SOPInstanceUID) for image in VIEWS.values()]
    assert one.distances == four.distances
    assert all((one.pictures[uid] == four.pictures[uid]).all() for uid in one.pictures)


def decoding(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[View], object]) -> None:
    def decoded(dataset: Dataset, view: View) -> ViewImage:
        meanwhile(view)
        return view_image(dataset, view)

    monkeypatch.setattr(node.analysis, "view_image", decoded)


def sources_of(folder: Path) -> list[Source]:
    found = an_exam(folder)
    return [source for source in found if source.uid in {str(image.SOPInstanceUID) for image in VIEWS.values()}]


def test_a_line_of_the_log_tells_of_which_exam_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    decoding(monkeypatch, lambda _: told.append(get_contextvars().get("exam")))
    with bound_contextvars(exam="E1"):
        analyse(FakeReader(), sources_of(tmp_path), threads=2)
    assert told == ["E1"] * 4


@pytest.mark.parametrize(("threads", "large", "at_once"), [(1, False, 1), (2, False, 2), (8, False, 2), (8, True, 1)])
def test_so_many_views_are_decoded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, *, large: bool, at_once: int
) -> None:
    if large:
        rows, columns = VIEWS[STANDARD_VIEWS[0]].pixel_array.shape
        monkeypatch.setattr(node.analysis, "LARGE", rows * columns - 1)
    together, here, most = Barrier(at_once), list[View](), []

    def decodes(view: View) -> None:
        here.append(view)
        most.append(len(here))
        together.wait(60)  # which fewer would wait for in vain
        sleep(0.02)
        here.remove(view)

    decoding(monkeypatch, decodes)
    assert len(analyse(FakeReader(), sources_of(tmp_path), threads=threads).pictures) == 4
    assert max(most) == at_once


def test_stages_take_no_longer_than_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding(monkeypatch, lambda _: sleep(0.1))
    sources = sources_of(tmp_path)
    begin = perf_counter()
    seconds = analyse(FakeReader(), sources, threads=4).seconds
    assert sum(seconds.values()) <= perf_counter() - begin
    assert seconds["decode"] > 0.09
    assert min(seconds.values()) > 0


def test_what_may_pass_is_raised_from_whichever_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(view: View) -> None:
        if view == STANDARD_VIEWS[3]:
            raise OSError(errno.ESTALE, "stale file handle")

    decoding(monkeypatch, fails)
    sources = sources_of(tmp_path)
    with pytest.raises(OSError, match="stale"):
        analyse(FakeReader(), sources, threads=4)
    found = analyse(FakeReader(), sources, threads=4, last=True)
    assert list(found.not_read) == [str(VIEWS[STANDARD_VIEWS[3]].SOPInstanceUID)]
    assert len(found.pictures) == 3


def test_an_exam_without_images_is_no_error() -> None:
    found = analyse(FakeReader(), [], threads=4)
    assert found.findings is None
    assert set(found.seconds) == {"decode", "gate", "read"}
