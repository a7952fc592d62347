"""Three helpers that ask the running predictor while the demo teaches."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgeseq_core.client import Client, Options, Prediction
from edgeseq_core.errors import EdgeSeqError
from edgeseq_core.settings import Settings

from .board import Board, Phase
from .plan import Lesson
from .watching import learner_views

PRODUCER = "edgeseq-demo"
EVALUATE_FIRST_S = 5.0  # into a phase
EVALUATE_EVERY_S = 15.0
EXAMPLE_EVERY_S = 0.5
STATUS_EVERY_S = 0.2
METRICS_EVERY_S = 2.0
FRESHNESS_MOST_S = 60.0  # a sampled pair is followed no longer
ASK_TIMEOUT_S = 5.0
ASK_ALL_TIMEOUT_S = 60.0


def ask_all(client: Client, task: str, sources: Sequence[str]) -> list[Prediction]:
    """Answers to many sources, behind everybody else's requests."""
    options = Options(task=task, priority="bulk", timeout_s=ASK_ALL_TIMEOUT_S)
    return list(client.predict_each(sources, options))


def targets(predictions: Sequence[Prediction]) -> list[str | None] | None:
    """The answers; None when one of them is missing for a reason other than an unknown task."""
    for prediction in predictions:
        code = getattr(prediction.error, "code", None)
        if prediction.error is not None and code != "unknown_task":
            return None
    return [None if p.error is not None else p.target for p in predictions]


@dataclass(frozen=True)
class Sample:
    """A pair whose way to the champion is followed."""

    task: str
    pair_id: str
    acknowledged_s: float  # monotonic


class Asking:
    """Owns the helper threads; they work for the phase that is set, and rest without one."""

    def __init__(self, client: Client, settings: Settings, board: Board) -> None:
        self._client, self._settings, self._board = client, settings, board
        self._stop = threading.Event()
        self._now: tuple[Phase, Lesson] | None = None
        self._sample: Sample | None = None
        self._evaluate_s = 0.0
        work = {
            "demo-examples": (self._example, EXAMPLE_EVERY_S),
            "demo-held-out": (self._evaluate, 1.0),
            "demo-freshness": (self._follow, STATUS_EVERY_S),
            "demo-metrics": (self._metrics, METRICS_EVERY_S),
        }
        self._turn = 0
        self._threads = [
            threading.Thread(target=self._repeat, args=what, name=name, daemon=True)
            for name, what in work.items()
        ]
        for thread in self._threads:
            thread.start()

    def watch(self, phase: Phase, lesson: Lesson) -> None:
        """Work for this phase."""
        self._evaluate_s = time.monotonic() + EVALUATE_FIRST_S
        self._now = (phase, lesson)

    def rest(self) -> None:
        """Ask nothing more."""
        self._now = None

    def follow(self, task: str, pair_id: str) -> None:
        """Measure how long a pair, acknowledged now, takes to the champion; one at a time."""
        if self._sample is None:
            self._sample = Sample(task, pair_id, time.monotonic())

    def stop(self) -> None:
        """Let the threads end; they are daemons, so a slow answer holds nothing up."""
        self._stop.set()
        for thread in self._threads:
            thread.join(0.5)

    def _repeat(self, work: object, every_s: float) -> None:
        assert callable(work)
        while not self._stop.wait(every_s):
            try:
                work()
            except EdgeSeqError as error:  # a child that is being restarted, mostly
                if not self._stop.is_set() and not error.retryable:
                    self._board.notice(str(error))

    # --- the helpers ------------------------------------------------------------------------------
    def _example(self) -> None:
        """Ask one example as any client would, and note how long the answer took."""
        now = self._now
        if now is None or not now[0].examples:
            return
        phase, lesson = now
        shown = phase.examples[self._turn % len(phase.examples)]
        self._turn += 1
        began = time.monotonic()
        (answer,) = self._client.predict_each(
            [shown.source], Options(task=phase.task, timeout_s=ASK_TIMEOUT_S)
        )
        if answer.error is not None:
            return
        self._board.latency.add(time.monotonic() - began)
        at = [source for source, _ in lesson.held_out].index(shown.source)
        self._board.saw(phase, shown, lesson.at_pair_0[at], answer.target)
        with self._board.lock:
            phase.snapshot_id = answer.snapshot_id

    def _evaluate(self) -> None:
        """Ask all held-out sources of the phase now and then."""
        now = self._now
        if now is None or time.monotonic() < self._evaluate_s:
            return
        phase, lesson = now
        answers = targets(ask_all(self._client, phase.task, [s for s, _ in lesson.held_out]))
        if answers is not None and any(answers) and self._now is now:
            self._board.answered(phase, lesson.held_out, lesson.at_pair_0, answers)
        self._evaluate_s = time.monotonic() + EVALUATE_EVERY_S

    def _follow(self) -> None:
        """Ask what became of the sampled pair, until the champion has learnt it."""
        sample = self._sample
        if sample is None:
            return
        status = self._client.pair_status(
            sample.task, PRODUCER, sample.pair_id, timeout_s=ASK_TIMEOUT_S
        )
        age_s = time.monotonic() - sample.acknowledged_s
        if status.state == "held_out":  # learnt much later, on purpose
            self._board.held_out_samples += 1
        elif status.in_champion or age_s > FRESHNESS_MOST_S:
            self._board.freshness.add(age_s)
        else:
            return
        self._sample = None

    def _metrics(self) -> None:
        now = self._now
        if now is not None:
            self.read_metrics(now[0])

    def read_metrics(self, phase: Phase) -> None:
        """Take prequential accuracy, verdicts and drift from the learner's metrics."""
        view = learner_views(self._settings).get(phase.task)
        if view is None:
            return
        board = self._board
        others = [p for p in board.phases if p.task == phase.task and p is not phase]
        with board.lock:
            phase.prequential, phase.drift_flag = view.prequential, view.drift_flag
            # Counters are the task's: those of its earlier phase are taken off.
            phase.promoted = max(phase.promoted, view.promoted - sum(p.promoted for p in others))
            phase.held = max(phase.held, view.held - sum(p.held for p in others))
            phase.drifts = max(phase.drifts, view.drifts - sum(p.drifts for p in others))
