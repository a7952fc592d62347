"""The asyncio client: the same answers, and the event loop never blocks."""

from __future__ import annotations

import asyncio
import time

import pytest

from edgeseq_core.client import AsyncClient
from edgeseq_core.errors import NoReplyError
from edgeseq_core.messages import Control, Message, Pair, Request
from tests.client.conftest import settings_of
from tests.client.responder import Responder, nearest_task, reply_to, silent


def test_every_call_is_awaited(responder: Responder) -> None:
    async def use() -> None:
        async with AsyncClient(settings=settings_of(responder), producer="tests") as client:
            assert (await client.predict("dates", "abc")).target == "cba"
            several = await client.predict("dates", [f"s{n}" for n in range(100)])
            assert [p.target for p in several] == [f"s{n}"[::-1] for n in range(100)]
            report = await client.teach("dates", [("a", "b"), ("c", "d")])
            assert report.count == 2
            assert await client.correct("dates", "a", "b", pair_id="c1") == "c1"
            assert (await client.pair_status("dates", "tests", "c1")).state == "trained"
            assert (await client.control("pin", "dates")).ok

    asyncio.run(use())
    assert len(responder.wait_for(2, Pair)) == 2


def test_the_task_none_lets_the_nearest_one_answer(responder: Responder) -> None:
    responder.answer = nearest_task

    async def use() -> None:
        async with AsyncClient(settings=settings_of(responder)) as client:
            found, strange = await client.predict(None, ["abc", "strange"])
            assert (found.task, found.task_confidence) == ("verbs", 0.75)
            assert strange.error is not None
            assert strange.error.code == "missing_task"

    asyncio.run(use())


def test_the_loop_turns_while_requests_wait(responder: Responder) -> None:
    held: list[Request] = []

    def hold(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        held.append(message)
        return []

    responder.answer = hold

    async def use() -> float:
        longest = 0.0
        done = asyncio.Event()

        async def measure() -> None:
            nonlocal longest
            while not done.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.005)
                longest = max(longest, time.perf_counter() - before)

        async with AsyncClient(settings=settings_of(responder)) as client:
            measured = asyncio.ensure_future(measure())
            asked = [asyncio.ensure_future(client.predict("t", str(n))) for n in range(200)]
            received = await asyncio.to_thread(responder.wait_for, 200, Request)
            for one in received:
                assert isinstance(one.message, Request)
                responder.send(reply_to(one.message), one.headers)
            predictions = await asyncio.gather(*asked)
            done.set()
            await measured
        assert [p.target for p in predictions] == [str(n)[::-1] for n in range(200)]
        return longest

    assert asyncio.run(use()) < 2.0  # blocking on a connection or an answer would take longer


def test_cancelling_the_awaiting_task_cancels_the_request(responder: Responder) -> None:
    responder.answer = silent

    async def use() -> None:
        async with AsyncClient(settings=settings_of(responder)) as client:
            asked = asyncio.ensure_future(client.predict("dates", "abc", request_id="mine"))
            await asyncio.to_thread(responder.wait_for, 1, Request)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

    asyncio.run(use())
    (one,) = responder.wait_for(1, Control)
    assert isinstance(one.message, Control)
    assert (one.message.action, one.message.request_id) == ("cancel", "mine")


def test_silence_is_an_error(responder: Responder) -> None:
    responder.answer = silent

    async def use() -> None:
        async with AsyncClient(settings=settings_of(responder)) as client:
            with pytest.raises(NoReplyError):
                await client.predict("dates", "abc", timeout_s=0.6)

    asyncio.run(use())
    assert len(responder.wait_for(3, Request)) == 3
