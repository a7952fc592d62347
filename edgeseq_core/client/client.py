"""The client: teach, ask and decide over Kafka, and nothing but Kafka."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Self, overload

from edgeseq_core.client.compose import compose
from edgeseq_core.client.exchange import Exchange, Question, answered, headers
from edgeseq_core.client.ids import new_id, now_ms
from edgeseq_core.client.pairs import AnyExample, Lesson, Progress, TeachReport
from edgeseq_core.client.prediction import (
    DEFAULT_TIMEOUT_S,
    MAX_IN_FLIGHT,
    Options,
    Prediction,
    ask_for,
    conclude,
)
from edgeseq_core.errors import ConfigError, MessageError
from edgeseq_core.messages import (
    Action,
    Control,
    ControlResult,
    Feedback,
    PairStatus,
    Priority,
    Series,
    Source,
    StatusQuery,
)
from edgeseq_core.settings import KafkaSettings

DEFAULT_PRODUCER = "edgeseq-client"


class Client:
    """A blocking client, safe to share between threads; connections open when first needed.

    >>> with Client("127.0.0.1:9092") as client:                       # doctest: +SKIP
    ...     client.teach("dates", [("21 March 2027", "2027-03-21")])
    ...     client.predict("dates", "4 May 2026").target
    '2026-05-04'
    """

    def __init__(
        self,
        bootstrap: str | None = None,
        *,
        settings: KafkaSettings | None = None,
        producer: str = DEFAULT_PRODUCER,
    ) -> None:
        """Speak to the broker at ``bootstrap``, or as ``settings`` say, under a producer id."""
        if bootstrap is not None and settings is not None:
            raise ConfigError("give a Client either an address or settings, not both")
        self.kafka = settings or KafkaSettings(**({"bootstrap": bootstrap} if bootstrap else {}))
        self.producer = producer
        self.exchange = Exchange(self.kafka)
        self.topics = self.exchange.topics

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush what was sent and close all connections."""
        self.exchange.close()

    # --- ask --------------------------------------------------------------------------------
    @overload
    def predict(
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
    def predict(
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
    def predict(  # noqa: PLR0913 - the options of a call
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
        """Answer one source, or each of a list; the task None lets the nearest one answer.

        One source: its error is raised (RequestError, NoReplyError).  A list: each prediction has
        its own ``error``.  ``timeout_s`` is how long to wait, and how long the predictor may take;
        ``deadline_ms`` is absolute wall clock.  ``n_best`` looks for more answers than one,
        ``constrained`` only for those of symbols that the task's targets have had.  ``request_id``
        lets another thread `cancel` it.

        Where the task is None, the prediction names it with its ``task_confidence``; a source that
        clearly belongs to none has the error code "missing_task".
        """
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
            return list(self.predict_each(source, options))
        (prediction,) = self._predict([source], options, request_id=request_id)
        if prediction.error is not None:
            raise prediction.error
        return prediction

    def predict_each(self, sources: Iterable[Source], options: Options) -> Iterator[Prediction]:
        """A prediction for each source, in order, as they come; few are in flight at a time."""
        remaining = iter(sources)
        while some := list(islice(remaining, MAX_IN_FLIGHT)):
            yield from self._predict(some, options)

    def _predict(
        self, sources: list[Source], options: Options, *, request_id: str | None = None
    ) -> list[Prediction]:
        asked = [ask_for(self.exchange, s, options, request_id=request_id) for s in sources]
        questions = [one.question for one in asked if one.question is not None]
        answers = iter(self.exchange.ask(questions, timeout_s=options.timeout_s))
        return [conclude(one, next(answers) if one.question else None, options) for one in asked]

    def cancel(self, request_id: str, *, task: str | None = None) -> None:
        """Ask every predictor to drop a request; its caller gets the error code "cancelled"."""
        control_id, value = self._control("cancel", task=task, request_id=request_id)
        key = (task or request_id).encode()
        sent = headers(control_id, producer=self.producer, traceparent=None)
        self.exchange.deliver(self.topics.control, key, value, sent)

    # --- teach ------------------------------------------------------------------------------
    def teach(
        self,
        task: str,
        pairs: Iterable[AnyExample],
        *,
        producer: str | None = None,
        on_progress: Progress | None = None,
        traceparent: str | None = None,
    ) -> TeachReport:
        """Stream labelled pairs and wait until the broker has them all.

        A pair is (source, target) or (source, target, pair id); ids are made where none is given.
        ``on_progress`` hears the number of acknowledged pairs, at most ten times a second.
        """
        lesson = Lesson(
            self.exchange.pairs_producer,
            topic=self.topics.pairs,
            task=task,
            producer=producer or self.producer,
            on_progress=on_progress,
            traceparent=traceparent,
        )
        return lesson.teach(pairs)

    def correct(
        self,
        task: str,
        source: Source,
        target: str,
        *,
        request_id: str | None = None,
        pair_id: str | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Give the right target of a source, learnt ahead of other pairs; returns the pair's id."""
        named = pair_id or new_id()
        _, value = compose(
            Feedback,
            pair_id=named,
            producer=self.producer,
            request_id=request_id,
            task=task,
            source=source,
            target=target,
            sent_at_ms=now_ms(),
        )
        sent = headers(named, producer=self.producer, traceparent=traceparent)
        self.exchange.deliver(self.topics.feedback, task.encode(), value, sent)
        return named

    def pair_status(
        self,
        task: str,
        producer: str,
        pair_id: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> PairStatus:
        """What became of a pair; "unknown" when it was never seen or left the window."""
        request_id = new_id()
        _, value = compose(
            StatusQuery,
            request_id=request_id,
            task=task,
            producer=producer,
            pair_id=pair_id,
            sent_at_ms=now_ms(),
        )
        question = self._question(self.topics.requests, task, request_id, value)
        answer = self._ask(question, timeout_s=timeout_s)
        if not isinstance(answer, PairStatus):
            raise MessageError("wrong_kind", f"status query {request_id} was answered by no status")
        return answer

    # --- decide -----------------------------------------------------------------------------
    def control(
        self,
        action: Action,
        task: str,
        *,
        snapshot_id: str | None = None,
        reason: str = "",
        operator: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> ControlResult:
        """Promote, pin, unpin or roll back, and wait for the result; ``ok`` tells what came."""
        if action == "cancel":
            raise ConfigError("a request is cancelled by cancel(), which no result answers")
        control_id, value = self._control(
            action, task=task, snapshot_id=snapshot_id, reason=reason, operator=operator
        )
        question = self._question(self.topics.control, task, control_id, value)
        answer = self._ask(question, timeout_s=timeout_s)
        if not isinstance(answer, ControlResult):
            raise MessageError("wrong_kind", f"control {control_id} was answered by no result")
        return answer

    def _control(
        self, action: Action, *, operator: str | None = None, **fields: Any
    ) -> tuple[str, bytes]:
        control_id = new_id()
        _, value = compose(
            Control,
            control_id=control_id,
            action=action,
            operator=operator or operator_name(),
            sent_at_ms=now_ms(),
            **fields,
        )
        return control_id, value

    def _question(self, topic: str, task: str, answer_id: str, value: bytes) -> Question:
        own = headers(answer_id, producer=self.producer, traceparent=None)
        return Question(
            answer_id=answer_id,
            topic=topic,
            key=task.encode(),
            value=value,
            headers=[*own, *self.exchange.reply_headers()],
        )

    def _ask(self, question: Question, *, timeout_s: float) -> Any:
        (answer,) = self.exchange.ask([question], timeout_s=timeout_s)
        return answered(answer)


def operator_name() -> str:
    """Who decides: the login name, where the system knows one that can be an id."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c in "._-"))[:64] or "unknown"
