"""The client for asyncio: the same calls, awaited, without ever blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Self, overload

from edgeseq_core.client.client import DEFAULT_PRODUCER, Client
from edgeseq_core.client.exchange import ATTEMPTS, Question, Unanswered, attempts
from edgeseq_core.client.pairs import AnyExample, Progress, TeachReport
from edgeseq_core.client.prediction import (
    DEFAULT_TIMEOUT_S,
    MAX_IN_FLIGHT,
    Asked,
    Options,
    Prediction,
    ask_for,
    conclude,
)
from edgeseq_core.client.replies import Answer
from edgeseq_core.errors import EdgeSeqError
from edgeseq_core.messages import Action, ControlResult, PairStatus, Priority, Series, Source
from edgeseq_core.settings import KafkaSettings


class AsyncClient:
    """A `Client` whose waiting is awaiting: thousands of requests need no thread each."""

    def __init__(
        self,
        bootstrap: str | None = None,
        *,
        settings: KafkaSettings | None = None,
        producer: str = DEFAULT_PRODUCER,
    ) -> None:
        """As `Client`."""
        self.client = Client(bootstrap, settings=settings, producer=producer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Flush what was sent and close all connections."""
        await asyncio.to_thread(self.client.close)

    @overload
    async def predict(
        self,
        task: str | None,
        source: Source,
        *,
        n_best: int = ...,
        constrained: bool = ...,
        timeout_s: float = ...,
        priority: Priority = ...,
        deadline_ms: int | None = ...,
        request_id: str | None = ...,
        traceparent: str | None = ...,
    ) -> Prediction: ...
    @overload
    async def predict(
        self,
        task: str | None,
        source: list[str] | list[Series] | list[Source],
        *,
        n_best: int = ...,
        constrained: bool = ...,
        timeout_s: float = ...,
        priority: Priority = ...,
        deadline_ms: int | None = ...,
        traceparent: str | None = ...,
    ) -> list[Prediction]: ...
    async def predict(  # noqa: PLR0913 - the options of a call
        self,
        task: str | None,
        source: Source | list[str] | list[Series] | list[Source],
        *,
        n_best: int = 1,
        constrained: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        priority: Priority = "interactive",
        deadline_ms: int | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Prediction | list[Prediction]:
        """As `Client.predict`; when the awaiting task is cancelled, so is the request."""
        options = Options(
            task=task,
            n_best=n_best,
            constrained=constrained,
            timeout_s=timeout_s,
            priority=priority,
            deadline_ms=deadline_ms,
            traceparent=traceparent,
        )
        if isinstance(source, list):
            predictions: list[Prediction] = []
            for start in range(0, len(source), MAX_IN_FLIGHT):
                some: list[Source] = list(source[start : start + MAX_IN_FLIGHT])
                predictions += await self._predict(some, options)
            return predictions
        (prediction,) = await self._predict([source], options, request_id=request_id)
        if prediction.error is not None:
            raise prediction.error
        return prediction

    async def teach(
        self,
        task: str,
        pairs: Iterable[AnyExample],
        *,
        producer: str | None = None,
        on_progress: Progress | None = None,
        traceparent: str | None = None,
    ) -> TeachReport:
        """As `Client.teach`; ``pairs`` and ``on_progress`` run in a worker thread."""
        teach = partial(self.client.teach, producer=producer, on_progress=on_progress)
        return await asyncio.to_thread(teach, task, pairs, traceparent=traceparent)

    async def correct(
        self,
        task: str,
        source: Source,
        target: str,
        *,
        request_id: str | None = None,
        pair_id: str | None = None,
        traceparent: str | None = None,
    ) -> str:
        """As `Client.correct`."""
        correct = partial(self.client.correct, request_id=request_id, pair_id=pair_id)
        return await asyncio.to_thread(correct, task, source, target, traceparent=traceparent)

    async def pair_status(
        self, task: str, producer: str, pair_id: str, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> PairStatus:
        """As `Client.pair_status`."""
        ask = partial(self.client.pair_status, timeout_s=timeout_s)
        return await asyncio.to_thread(ask, task, producer, pair_id)

    async def cancel(self, request_id: str, *, task: str | None = None) -> None:
        """As `Client.cancel`."""
        await asyncio.to_thread(self.client.cancel, request_id, task=task)

    async def control(
        self,
        action: Action,
        task: str,
        *,
        snapshot_id: str | None = None,
        reason: str = "",
        operator: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> ControlResult:
        """As `Client.control`."""
        control = partial(self.client.control, snapshot_id=snapshot_id, reason=reason)
        return await asyncio.to_thread(
            control, action, task, operator=operator, timeout_s=timeout_s
        )

    async def _predict(
        self, sources: list[Source], options: Options, *, request_id: str | None = None
    ) -> list[Prediction]:
        exchange = self.client.exchange

        def compose_all() -> list[Asked]:
            return [ask_for(exchange, s, options, request_id=request_id) for s in sources]

        asked = await asyncio.to_thread(compose_all)
        questions = [one.question for one in asked if one.question is not None]
        answers = iter(await self._ask(questions, timeout_s=options.timeout_s))
        return [conclude(one, next(answers) if one.question else None, options) for one in asked]

    async def _ask(
        self, questions: list[Question], *, timeout_s: float
    ) -> list[Answer | EdgeSeqError]:
        """`Exchange.ask`, awaiting the answers instead of blocking a thread on them."""
        exchange = self.client.exchange
        pending = exchange.expect(questions)
        waiting = [asyncio.wrap_future(one.answer) for one in pending]
        try:
            async for attempt in attempts():
                with attempt:
                    await asyncio.to_thread(exchange.post, pending)
                    if waiting and (await asyncio.wait(waiting, timeout=timeout_s / ATTEMPTS))[1]:
                        raise Unanswered
        except Unanswered:
            pass
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._cancel_all(questions)))
            raise
        finally:
            exchange.forget(pending)
        outcomes = [exchange.outcome(one, timeout_s) for one in pending]
        for future in waiting:
            if not future.cancel() and not future.cancelled():
                future.exception()  # told by its outcome
        return outcomes

    async def _cancel_all(self, questions: list[Question]) -> None:
        """Let the cancels leave; a lost one only means that the request runs into its time-out."""
        with contextlib.suppress(EdgeSeqError):
            for question in questions:
                await self.cancel(question.answer_id)
