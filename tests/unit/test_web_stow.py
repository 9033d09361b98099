"""What is received in the event loop is written in a thread beside it: in order, and never after its file is gone."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from threading import Event

import pytest

from node.web.stow import Beside

THREADS = ThreadPoolExecutor(2)


def test_one_thing_is_done_after_the_other_while_the_next_is_received() -> None:
    done: list[int] = []
    go_on = Event()

    def do(number: int) -> None:
        time.sleep(0.01 * (3 - number))
        assert number < 2 or go_on.wait(30)
        done.append(number)

    async def receive() -> list[int]:
        beside = Beside(THREADS)
        for number in range(3):
            await beside.do(do, number)
        before = list(done)
        go_on.set()
        await beside.done()
        return before

    assert asyncio.run(receive()) == [0, 1]
    assert done == [0, 1, 2]


def test_what_fails_is_told_to_whoever_goes_on() -> None:
    def fail() -> None:
        raise OSError("full")

    async def receive() -> None:
        beside = Beside(THREADS)
        await beside.do(fail)
        with pytest.raises(OSError, match="full"):
            await beside.do(fail)
        await beside.do(fail)
        await beside.settled()
        await beside.done()

    asyncio.run(receive())


def test_a_caller_who_gives_up_waits_for_the_thread() -> None:
    done: list[str] = []

    def do() -> None:
        time.sleep(0.05)
        done.append("written")

    async def receive() -> None:
        beside = Beside(THREADS)
        try:
            await beside.do(do)
            raise ConnectionResetError
        finally:
            await beside.settled()
            done.append("removed")

    with pytest.raises(ConnectionResetError):
        asyncio.run(receive())
    assert done == ["written", "removed"]


def test_a_caller_who_is_cancelled_waits_for_the_thread_too() -> None:
    done: list[str] = []
    begun, go_on = Event(), Event()
    number: ContextVar[str] = ContextVar("number")

    def do() -> None:
        begun.set()
        assert go_on.wait(30)
        done.append(f"written {number.get()}")

    async def receive() -> None:
        beside = Beside(THREADS)
        number.set("7")
        try:
            await beside.do(do)
            await beside.done()
        finally:
            go_on.set()
            await beside.settled()
            done.append("removed")

    async def cancelled() -> None:
        receiving = asyncio.create_task(receive())
        await asyncio.to_thread(begun.wait, 30)
        receiving.cancel()
        with suppress(asyncio.CancelledError):
            await receiving

    asyncio.run(cancelled())
    assert done == ["written 7", "removed"]
