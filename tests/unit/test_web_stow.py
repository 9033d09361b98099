"""What is received in the event loop is written in a thread beside it: in order, and never after its file is gone."""

import asyncio
import time

import pytest

from node.web.stow import Beside


def test_one_thing_is_done_after_the_other_while_the_next_is_received() -> None:
    done: list[int] = []

    def do(number: int) -> None:
        time.sleep(0.01 * (3 - number))
        done.append(number)

    async def receive() -> list[int]:
        beside = Beside()
        for number in range(3):
            await beside.do(do, number)
        before = list(done)
        await beside.done()
        return before

    assert 2 not in asyncio.run(receive())
    assert done == [0, 1, 2]


def test_what_fails_is_told_to_whoever_goes_on() -> None:
    def fail() -> None:
        raise OSError("full")

    async def receive() -> None:
        beside = Beside()
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
        beside = Beside()
        try:
            await beside.do(do)
            raise ConnectionResetError
        finally:
            await beside.settled()
            done.append("removed")

    with pytest.raises(ConnectionResetError):
        asyncio.run(receive())
    assert done == ["written", "removed"]
