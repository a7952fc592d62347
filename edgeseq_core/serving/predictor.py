"""Requests in, replies out: validation, repeated ids, the engine, abstention, timings.

Knows no Kafka.  One thread calls `answer`; `refuse` may be called from any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from edgeseq_core.clock import Clock
from edgeseq_core.engine import Answer, Engine, Generation, Limits, SourceRow, Stop
from edgeseq_core.errors import MessageError
from edgeseq_core.messages import (
    ErrorCode,
    Hypothesis,
    PairName,
    Priority,
    Reply,
    ReplyError,
    Request,
    Series,
    Timings,
    decode,
    encode,
)
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.serving.meter import Meter
from edgeseq_core.serving.queued import PRIORITIES, Origin, QueuedRequest, expires_at_s
from edgeseq_core.serving.recall import Asked
from edgeseq_core.serving.replies import ReplyCache, fingerprint, pack, unpack
from edgeseq_core.serving.residents import Residents
from edgeseq_core.settings import PredictorSettings

log = structlog.get_logger(__name__)

NO_TIME = Timings(queue_ms=0, compute_ms=0, total_ms=0)
LOWEST_SCORE = -745.0  # log of the smallest float: the score of an answer with confidence 0
STOPPED: dict[Stop, tuple[ErrorCode, str]] = {
    "deadline": ("expired", "the deadline passed while the answer was being made"),
    "cancelled": ("cancelled", "the request was cancelled while the answer was being made"),
}
LATE: dict[ErrorCode, str] = {
    "expired": "the deadline passed before the answer was begun",
    "cancelled": "the request was cancelled before the answer was begun",
    "overloaded": "the queue for this priority is full; try again later or at another priority",
}


@dataclass
class _Question:
    """All requests of a batch that share an id: computed once."""

    first: QueuedRequest
    key: bytes
    askers: list[QueuedRequest] = field(default_factory=list)


class Predictor:
    """Answers batches of requests with one engine."""

    def __init__(  # noqa: PLR0913 - what it asks, each replaceable
        self,
        engine: Engine,
        *,
        cache: ReplyCache,
        clock: Clock,
        recall: Callable[[Sequence[Asked]], Mapping[Asked, Remembered]] = lambda _asked: {},
        abstain_below: Callable[[str], float] = lambda _task: 0.0,
        is_cancelled: Callable[[str], bool] = lambda _request_id: False,
        cannot_load: Callable[[str], bool] = lambda _task: False,
        residents: Residents | None = None,
        settings: PredictorSettings,
        meter: Meter | None = None,
    ) -> None:
        self._engine = engine
        self._residents = residents or Residents(
            engine, budget_bytes=settings.tasks_budget_bytes, clock=clock
        )
        self._cache = cache
        self._clock = clock
        self._recall = recall
        self._abstain_below = abstain_below
        self._is_cancelled = is_cancelled
        self._cannot_load = cannot_load
        self._settings = settings
        self._meter = meter or Meter()

    # --- before the queue -------------------------------------------------------------------------
    def receive(
        self, request: Request, *, origin: Origin | None = None, at_most: Priority = "interactive"
    ) -> QueuedRequest:
        """Stamp a request on arrival; ``at_most`` bounds its priority (bulk on the bulk topic)."""
        now_s = self._clock.monotonic()
        wall_ms = self._clock.wall_ms()
        return QueuedRequest(
            request=request,
            priority=max(request.priority, at_most, key=PRIORITIES.index),
            received_s=now_s,
            expires_s=expires_at_s(request, received_s=now_s, received_wall_ms=wall_ms),
            source_tokens=(
                self._engine.source_tokens(request.source) if isinstance(request.source, str) else 0
            ),
            origin=origin,
        )

    def refuse(self, queued: QueuedRequest) -> Reply | None:
        """The typed error of a request that cannot be computed, else None."""
        request = queued.request
        if isinstance(request.source, Series):
            return self.error(queued, "unsupported_source", "time series cannot be answered yet")
        if request.task is not None and self._residents.snapshot_id(request.task) is None:
            if self._cannot_load(request.task):
                detail = "this predictor cannot load the task's snapshot; its log says why"
                return self.error(queued, "internal", detail)
            return self.error(queued, "unknown_task", "no snapshot serves this task (yet)")
        if (fault := self._too_much(queued)) is not None:
            return self.error(queued, *fault)
        return None

    def _too_much(self, queued: QueuedRequest) -> tuple[ErrorCode, str] | None:
        """What the request wants more of than this predictor reads or gives."""
        asked = queued.request.n_best
        if queued.source_tokens > (limit := self._engine.max_source_tokens):
            detail = f"the source has {queued.source_tokens} tokens, at most {limit} are read"
            return "too_long", detail
        if asked > (limit := self._settings.max_n_best):
            return "invalid", f"n_best is {asked}, this predictor gives at most {limit} answers"
        return None

    def late(self, queued: QueuedRequest, code: ErrorCode) -> Reply:
        """The typed error of a request that did not get its turn."""
        return self.error(queued, code, LATE[code])

    def error(self, queued: QueuedRequest, code: ErrorCode, detail: str) -> Reply:
        """A typed error reply."""
        self._meter.request(queued.request.task, code)
        waited_ms = self._since_ms(queued.received_s)
        return Reply(
            request_id=queued.request_id,
            task=queued.request.task,
            error=ReplyError(code=code, detail=detail),
            timings=Timings(queue_ms=waited_ms, compute_ms=0.0, total_ms=waited_ms),
        )

    # --- a batch ----------------------------------------------------------------------------------
    def answer(self, batch: Sequence[QueuedRequest]) -> list[Reply | QueuedRequest]:
        """One reply for each request, in their order; never raises for what a request holds.

        In place of a reply stands the request itself, with its task, where that was inferred and must
        be loaded first: queue it again.
        """
        begun_s = self._clock.monotonic()
        questions = self._questions(batch)
        replies: dict[int, Reply | QueuedRequest] = {}
        known = self._cache.lookup(list(questions))
        compute: list[QueuedRequest] = []
        for request_id, question in questions.items():
            if request_id in known:
                self._repeat(question, known[request_id], replies)
            elif (refusal := self._not_now(question.first)) is not None:
                replies.update((id(asker), refusal) for asker in question.askers)
            else:
                compute.append(question.first)
        if compute:
            fresh = self._compute(compute, begun_s)
            self._settle(questions, fresh, replies)
        return [replies[id(queued)] for queued in batch]

    def _questions(self, batch: Sequence[QueuedRequest]) -> dict[str, _Question]:
        questions: dict[str, _Question] = {}
        for queued in batch:
            question = questions.get(queued.request_id)
            if question is None:
                question = _Question(queued, fingerprint(queued.asked))
                questions[queued.request_id] = question
            question.askers.append(queued)
        return questions

    def _not_now(self, queued: QueuedRequest) -> Reply | None:
        if self._is_cancelled(queued.request_id):
            return self.late(queued, "cancelled")
        if queued.expired(self._clock.monotonic()):
            return self.late(queued, "expired")
        task = queued.request.task
        cold = self._residents.lacks_places() if task is None else self._residents.is_cold(task)
        if cold and self._residents.store_is_away():
            detail = (
                "the store cannot be reached, and what answers this is not in memory; ask again"
            )
            return self.error(queued, "internal", detail)
        return self.refuse(queued)

    def _repeat(
        self, question: _Question, entry: bytes, replies: dict[int, Reply | QueuedRequest]
    ) -> None:
        """Give every asker the entry's answer, if it is the answer to what they ask."""
        key, data = unpack(entry)
        for asker in question.askers:
            if fingerprint(asker.asked) != key:
                detail = "this request id was used for another question; use a new one"
                replies[id(asker)] = self.error(asker, "invalid", detail)
                continue
            try:
                replies[id(asker)] = decode(data, Reply)
            except MessageError:
                detail = "the reply stored under this request id cannot be read; use a new id"
                replies[id(asker)] = self.error(asker, "internal", detail)
            else:
                self._meter.request(asker.request.task, "repeated")

    def _settle(
        self,
        questions: dict[str, _Question],
        fresh: dict[str, Reply | QueuedRequest],
        replies: dict[int, Reply | QueuedRequest],
    ) -> None:
        """Remember the answers; where another predictor was first, its answer counts."""
        entries = {
            request_id: pack(questions[request_id].key, encode(reply))
            for request_id, reply in fresh.items()
            if isinstance(reply, Reply) and reply.error is None
        }
        counts = self._cache.settle(entries)
        for request_id, reply in fresh.items():
            question = questions[request_id]
            if isinstance(reply, QueuedRequest):
                replies.update((id(asker), asker.like(reply)) for asker in question.askers)
                continue
            entry = counts.get(request_id)
            if entry is None:  # an error: each asker gets it
                replies.update((id(asker), reply) for asker in question.askers)
                continue
            askers = question.askers
            if entry == entries[request_id]:
                replies[id(question.first)] = reply
                self._count(question.first, reply)
                askers = askers[1:]
            self._repeat(_Question(question.first, question.key, list(askers)), entry, replies)

    def _count(self, queued: QueuedRequest, reply: Reply) -> None:
        outcome = "remembered" if reply.memory else "abstained" if reply.abstained else "answered"
        self._meter.request(reply.task, outcome)
        self._meter.latency("queue", reply.timings.queue_ms / 1000)
        self._meter.latency("compute", reply.timings.compute_ms / 1000)
        self._meter.latency("total", self._since_ms(queued.received_s) / 1000)

    # --- the engine -------------------------------------------------------------------------------
    def _compute(
        self, batch: Sequence[QueuedRequest], begun_s: float
    ) -> dict[str, Reply | QueuedRequest]:
        self._meter.batch(len(batch))
        replies: dict[str, Reply | QueuedRequest] = {}
        try:
            batch = self._named(batch)
            cold = [q for q in batch if not self._residents.hold(q.request.task)]
            known = [q for q in batch if q.request.task is not None and q not in cold]
            told = self._told(known)
            rows = [q for q in known if q not in told or q.request.n_best > 1]
            made = dict(zip(rows, self._generate(rows) if rows else (), strict=True))
            compute_ms = self._since_ms(begun_s)
            for q in known:
                timings = self._timings(q, begun_s, compute_ms)
                replies[q.request_id] = self._reply(q, made.get(q), told.get(q), timings)
        except Exception as error:
            if len(batch) > 1:  # one row must not spoil the others
                return {k: r for q in batch for k, r in self._compute([q], begun_s).items()}
            return {batch[0].request_id: self._failed(batch[0], error)}
        replies.update((queued.request_id, queued) for queued in cold)
        for queued in batch:
            if queued.request.task is None:
                replies[queued.request_id] = self.error(queued, "missing_task", _unclear(queued))
        return replies

    def _named(self, batch: Sequence[QueuedRequest]) -> list[QueuedRequest]:
        """The batch with the nearest task in requests that name none; where none is near it stays."""
        nameless = [str(q.request.source) for q in batch if q.request.task is None]
        inferred = iter(self._engine.infer(nameless) if nameless else ())
        return [q if q.request.task is not None else q.of(next(inferred)) for q in batch]

    def _told(self, batch: Sequence[QueuedRequest]) -> dict[QueuedRequest, Remembered]:
        """What the sources were corrected to, where that is remembered."""
        asked = {queued: (str(queued.request.task), str(queued.request.source)) for queued in batch}
        known = self._recall(list(asked.values()))
        return {queued: known[one] for queued, one in asked.items() if one in known}

    def _generate(self, batch: Sequence[QueuedRequest]) -> list[Generation]:
        def stop(row: int) -> Stop | None:
            if batch[row].expired(self._clock.monotonic()):
                return "deadline"
            return "cancelled" if self._is_cancelled(batch[row].request_id) else None

        rows = [
            SourceRow(str(r.task), str(r.source), r.n_best, r.constrained)
            for r in (queued.request for queued in batch)
        ]
        return self._engine.generate(rows, Limits(max_tokens=self._settings.max_tokens, stop=stop))

    def _failed(self, queued: QueuedRequest, error: Exception) -> Reply:
        if isinstance(error, KeyError) and (refusal := self.refuse(queued)) is not None:
            return refusal  # the task was dropped after the request was let in
        log.error(
            "a request could not be computed",
            request_id=queued.request_id,
            source_tokens=queued.source_tokens,
            error=type(error).__name__,  # not its text: it may quote the source
        )
        return self.error(queued, "internal", f"{type(error).__name__} while computing")

    def _reply(
        self,
        queued: QueuedRequest,
        made: Generation | None,
        told: Remembered | None,
        timings: Timings,
    ) -> Reply:
        if made is not None and made.stop in STOPPED:
            return self.error(queued, *STOPPED[made.stop])
        if told is not None:
            return self._remembered(queued, told, made, timings)
        assert made is not None  # what nobody told was generated
        task = str(queued.request.task)
        confidence = min(1.0, max(0.0, made.confidence))
        return Reply(
            request_id=queued.request_id,
            task=task,
            hypotheses=_hypotheses(made),
            confidence=confidence,
            # A cut answer is no answer: it abstains, whatever the confidence in its beginning.
            abstained=made.stop == "length" or confidence < self._abstain_below(task),
            snapshot_id=made.snapshot_id,
            task_confidence=queued.inferred.confidence if queued.inferred else None,
            timings=timings,
        )

    def _remembered(
        self, queued: QueuedRequest, told: Remembered, made: Generation | None, timings: Timings
    ) -> Reply:
        """What the source was corrected to, then the model's answers where more were asked for.

        It has no confidence, which is the model's, and so does not abstain; cut answers are left out.
        """
        task, n_best = str(queued.request.task), queued.request.n_best
        snapshot_id = made.snapshot_id if made else self._engine.snapshot_id(task)
        if snapshot_id is None:
            raise KeyError(task)  # as the engine does
        further = [] if made is None or made.stop == "length" else _hypotheses(made)
        others = [one for one in further if one.target != told.target]
        return Reply(
            request_id=queued.request_id,
            task=task,
            hypotheses=[Hypothesis(target=told.target, score=None), *others[: n_best - 1]],
            snapshot_id=snapshot_id,
            task_confidence=queued.inferred.confidence if queued.inferred else None,
            memory=PairName(producer=told.producer, pair_id=told.pair_id),
            timings=timings,
        )

    def _timings(self, queued: QueuedRequest, begun_s: float, compute_ms: float) -> Timings:
        return Timings(
            queue_ms=max(0.0, (begun_s - queued.received_s) * 1000),
            compute_ms=compute_ms,
            total_ms=self._since_ms(queued.received_s),
        )

    def _since_ms(self, moment_s: float) -> float:
        return max(0.0, (self._clock.monotonic() - moment_s) * 1000)


def _unclear(queued: QueuedRequest) -> str:
    """Why no task was inferred, for people."""
    if queued.inferred is not None and queued.inferred.between:
        return f"the source may belong to {' or '.join(queued.inferred.between)}; name its task"
    return "the source is unlike what any task here was taught; name its task"


def _hypotheses(made: Generation) -> list[Hypothesis]:
    answers = (Answer(made.target, made.confidence), *made.others)
    return [Hypothesis(target=a.target, score=_score(a.confidence)) for a in answers]


def _score(confidence: float) -> float:
    return math.log(min(1.0, confidence)) if confidence > 0 else LOWEST_SCORE
