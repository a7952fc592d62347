"""From a source to a request record, and from its reply to a prediction."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseq_core.client.compose import compose, request_error
from edgeseq_core.client.exchange import Exchange, Question, headers
from edgeseq_core.client.ids import new_id, now_ms
from edgeseq_core.client.replies import Answer
from edgeseq_core.errors import EdgeSeqError, MessageError, NoReplyError, RequestError
from edgeseq_core.messages import (
    Hypothesis,
    PairName,
    Priority,
    Reply,
    Request,
    Source,
    Timings,
)

DEFAULT_TIMEOUT_S = 10.0
MAX_IN_FLIGHT = 64  # of one call; a predictor's queue is shared by all clients


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to one source, or why there is none."""

    request_id: str
    task: str | None
    source: Source
    target: str | None = None  # the best hypothesis; an abstention may carry one too
    confidence: float | None = None  # the model's; None for a remembered answer
    abstained: bool = False
    snapshot_id: str | None = None
    task_confidence: float | None = None  # of the inferred task; None where the request named one
    memory: PairName | None = None  # the correction whose target this is, word for word
    hypotheses: tuple[Hypothesis, ...] = ()
    timings: Timings | None = None
    error: RequestError | NoReplyError | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of every source of a call."""

    task: str | None
    n_best: int = 1
    constrained: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S
    priority: Priority = "interactive"
    deadline_ms: int | None = None  # absolute wall clock
    traceparent: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A source and its question; a source that cannot be asked has an error instead."""

    source: Source
    request_id: str
    question: Question | None
    error: RequestError | None = None


def ask_for(
    exchange: Exchange, source: Source, options: Options, *, request_id: str | None
) -> Asked:
    """The question for one source; bulk requests have a topic of their own."""
    topics = exchange.topics
    named = request_id or new_id()
    try:
        _, value = compose(
            Request,
            request_id=named,
            task=options.task,
            source=source,
            n_best=options.n_best,
            constrained=options.constrained,
            deadline_ms=options.deadline_ms,
            timeout_ms=max(1, round(options.timeout_s * 1000)),
            priority=options.priority,
            sent_at_ms=now_ms(),
        )
    except MessageError as error:
        refused = request_error(error, source)
        return Asked(source=source, request_id=named, question=None, error=refused)
    question = Question(
        answer_id=named,
        topic=topics.bulk if options.priority == "bulk" else topics.requests,
        key=options.task.encode() if options.task is not None else None,
        value=value,
        headers=[
            *headers(named, producer=None, traceparent=options.traceparent),
            *exchange.reply_headers(),
        ],
    )
    return Asked(source=source, request_id=named, question=question)


def conclude(asked: Asked, answer: Answer | EdgeSeqError | None, options: Options) -> Prediction:
    """The prediction that an answer makes; raises what concerns the connection, not the source."""
    if asked.error is not None:
        return _failed(asked, options, asked.error)
    if isinstance(answer, NoReplyError):
        return _failed(asked, options, answer)
    if isinstance(answer, EdgeSeqError):
        raise answer
    if not isinstance(answer, Reply):
        raise MessageError("wrong_kind", f"request {asked.request_id} was answered by no reply")
    error = answer.error
    return Prediction(
        request_id=asked.request_id,
        task=answer.task or options.task,
        source=asked.source,
        target=answer.hypotheses[0].target if answer.hypotheses else None,
        confidence=answer.confidence,
        abstained=answer.abstained,
        snapshot_id=answer.snapshot_id,
        task_confidence=answer.task_confidence,
        memory=answer.memory,
        hypotheses=tuple(answer.hypotheses),
        timings=answer.timings,
        error=RequestError(error.code, error.detail) if error is not None else None,
    )


def _failed(asked: Asked, options: Options, error: RequestError | NoReplyError) -> Prediction:
    return Prediction(
        request_id=asked.request_id, task=options.task, source=asked.source, error=error
    )
