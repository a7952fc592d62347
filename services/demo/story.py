"""The demo's story: phase after phase is taught at a pace the learner keeps, then all is checked."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from edgeseq_core.client import Client, Prediction
from edgeseq_core.errors import EdgeSeqError, ServiceError
from edgeseq_core.evaluate.floors import SuffixRules, copy_source
from edgeseq_core.settings import Settings

from .asking import Asking, ask_all, targets
from .board import Board, Phase
from .measures import Pace
from .plan import Lesson, Preparation, right
from .watching import Served, StoreView

SEND_EVERY_S = 0.25
AHEAD_S = 4.0  # seconds of pairs that may wait for the learner
LOOK_EVERY_S = 0.5  # while a phase settles
SUFFIX_EVERY_S = 5.0
SETTLE_LIMIT_S = 180.0
AGREE_LIMIT_S = 30.0


@dataclass(frozen=True)
class Ending:
    """A phase's champion and its answers to the held-out sources."""

    served: Served | None
    answers: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """What the end of all compares with the end of a phase, for a task without later pairs."""

    phase: str
    later_pairs: bool  # the task was taught again: it may have changed
    same_bytes: bool
    same_answers: bool
    before: Served | None
    after: Served | None


class Story:
    """Runs once, in one thread; `stop` ends it early."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        board: Board,
        preparation: Preparation,
        *,
        rate: float,
    ) -> None:
        self._client, self._board, self._preparation = client, board, preparation
        self._rate = rate
        self._store = StoreView(settings)
        self._asking = Asking(client, settings, board)
        self._stop = threading.Event()
        self._endings: dict[str, Ending] = {}
        self.unchanged: list[Unchanged] = []
        self.error: EdgeSeqError | None = None
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-story", daemon=True)

    def start(self) -> None:
        """Begin teaching."""
        self._thread.start()

    def stop(self) -> None:
        """End early, or clean up after the end."""
        self._stop.set()
        self._asking.stop()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        self._store.close()

    def _run(self) -> None:
        try:
            for phase in self._board.phases:
                lesson = self._preparation.wait(phase.name, self._stop)
                if lesson is None or not self._phase(phase, lesson):
                    return
            self._check()
        except EdgeSeqError as error:
            self.error = error
        except Exception as error:
            self.error = ServiceError(f"the demo failed ({type(error).__name__}: {error})")
        finally:
            self._asking.rest()
            self.done.set()

    # --- one phase --------------------------------------------------------------------------------
    def _phase(self, phase: Phase, lesson: Lesson) -> bool:
        """Teach, settle, ask; False when stopped meanwhile."""
        board, task = self._board, phase.task
        before = targets(ask_all(self._client, task, [s for s, _ in lesson.held_out]))
        journal = self._store.journal_length(task)
        base = self._store.taken(task)
        self._describe(phase, lesson, before)
        with board.lock:
            phase.status, phase.began_s = "learning", board.elapsed_s
            board.active, board.doing = phase, f"teaching {phase.name}"
        self._asking.watch(phase, lesson)
        if not self._teach(phase, lesson, base):
            return False
        with board.lock:
            phase.status, board.doing = "settling", f"{phase.name}: the learner finishes"
        if not self._settle(phase, base, journal):
            return False
        self._asking.rest()
        self._asking.read_metrics(phase)  # the last verdict came after the last look
        ending = self._ending(task, lesson)
        self._endings[phase.name] = ending
        board.answered(phase, lesson.held_out, lesson.at_pair_0, ending.answers)
        with board.lock:
            phase.at_end = phase.held_out
            phase.snapshot_id = ending.served.snapshot_id if ending.served else None
            phase.status, phase.ended_s = "done", board.elapsed_s
        return True

    def _describe(self, phase: Phase, lesson: Lesson, before: list[str | None] | None) -> None:
        """Fill in what is known before the first pair."""
        fill_in(phase, lesson)
        served = before if before is not None and any(before) else None
        with self._board.lock:
            if served is not None:
                phase.at_start = phase.held_out = right(served, lesson.held_out)
            phase.show(lesson.held_out, served or lesson.at_pair_0)

    def _teach(self, phase: Phase, lesson: Lesson, base: int) -> bool:
        ahead = max(32, round(AHEAD_S * self._rate))
        pace = Pace(rate=self._rate, ahead=ahead, now_s=time.monotonic())
        rules, suffix_s, ruled = SuffixRules(), time.monotonic() + SUFFIX_EVERY_S, 0
        while phase.sent < phase.total:
            if self._stop.wait(SEND_EVERY_S):
                return False
            learnt = max(0, self._store.taken(phase.task) - base)
            due = pace.due(now_s=time.monotonic(), backlog=phase.sent - learnt)
            some = lesson.pairs[phase.sent : phase.sent + due]
            if some:
                report = self._client.teach(phase.task, some)
                self._asking.follow(phase.task, report.pair_ids[-1])
            with self._board.lock:
                phase.sent, phase.learnt = phase.sent + len(some), learnt
            if time.monotonic() >= suffix_s or phase.sent == phase.total:
                rules.learn_many(lesson.pairs[ruled : phase.sent])
                ruled, suffix_s = phase.sent, time.monotonic() + SUFFIX_EVERY_S
                answers = [rules.predict_one(source) for source, _ in lesson.held_out]
                with self._board.lock:
                    phase.suffix_rules = right(answers, lesson.held_out)
        return True

    def _settle(self, phase: Phase, base: int, journal: int) -> bool:
        """Wait until all pairs are taken and no candidate is pending."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while True:
            taken = self._store.taken(phase.task) - base
            with self._board.lock:
                phase.learnt = taken
            through = taken >= phase.sent and not self._store.waiting(phase.task)
            if through and self._store.is_settled(phase.task, after=journal):
                return True
            if time.monotonic() > deadline:
                self._board.notice(
                    f"{phase.name} did not settle within {SETTLE_LIMIT_S:.0f} s: "
                    f"{taken} of {phase.sent} pairs are taken"
                )
                return True
            if self._stop.wait(LOOK_EVERY_S):
                return False

    def _ending(self, task: str, lesson: Lesson) -> Ending:
        """The champion and its answers, all from that champion."""
        deadline = time.monotonic() + AGREE_LIMIT_S
        while True:
            served = self._store.served(task)
            predictions = ask_all(self._client, task, [s for s, _ in lesson.held_out])
            answers = targets(predictions)
            wanted = served and served.snapshot_id
            agreed = all(p.snapshot_id == wanted for p in predictions)
            if (answers is not None and agreed) or time.monotonic() > deadline:
                return Ending(served, tuple(_target(p) for p in predictions))
            self._stop.wait(LOOK_EVERY_S)

    # --- the end of all ---------------------------------------------------------------------------
    def _check(self) -> None:
        """Compare every phase's end with now: only a task that was taught again may differ."""
        with self._board.lock:
            self._board.doing = "comparing with the end of each phase"
        last = {phase.task: phase.name for phase in self._board.phases}
        for phase in self._board.phases:
            lesson = self._preparation.ready(phase.name)
            assert lesson is not None
            before, after = self._endings[phase.name], self._ending(phase.task, lesson)
            same_bytes = before.served == after.served
            self.unchanged.append(
                Unchanged(
                    phase=phase.name,
                    later_pairs=last[phase.task] != phase.name,
                    same_bytes=same_bytes,
                    same_answers=before.answers == after.answers,
                    before=before.served,
                    after=after.served,
                )
            )
            with self._board.lock:
                phase.final = right(after.answers, lesson.held_out)
        with self._board.lock:
            self._board.active, self._board.doing = None, "done"


def fill_in(phase: Phase, lesson: Lesson) -> None:
    """The shares right at pair 0 and of copying; and the pairs there really are."""
    phase.total = len(lesson.pairs)
    phase.at_pair_0 = right(lesson.at_pair_0, lesson.held_out)
    phase.copying = right([copy_source(source) for source, _ in lesson.held_out], lesson.held_out)
    if phase.status == "preparing":
        phase.status = "waiting"


def _target(prediction: Prediction) -> str | None:
    return None if prediction.error is not None else prediction.target
