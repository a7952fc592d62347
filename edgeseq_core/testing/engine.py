"""An engine without a model: it answers by a rule, so a test knows the answer and its snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from edgeseq_core.engine import (
    Answer,
    Generation,
    Inferred,
    Limits,
    PairRow,
    Score,
    SourceRow,
    Stop,
)
from edgeseq_core.errors import SnapshotError

BASE_DIGEST = "fake-base"


def fake_payload(task: str, mark: str, *, confidence: float = 0.9) -> bytes:
    """A snapshot of the fake engine; ``mark`` shows up in the answers it makes."""
    return json.dumps({"task": task, "mark": mark, "confidence": confidence}).encode()


class FakeEngine:
    """Answers the reversed source and the mark of the task's snapshot, one character a decode step.

    Its second, third, ... best answer is the first with that number after it, half as likely each time.

    ``before_token(row, step)`` runs before each step, so a test can let time pass or fail there;
    ``batches`` keeps what each call was asked.
    """

    def __init__(
        self,
        *,
        base_digest: str = BASE_DIGEST,
        max_source_tokens: int = 64,
        before_token: Callable[[int, int], None] = lambda _row, _step: None,
    ) -> None:
        self.base_digest = base_digest
        self.max_source_tokens = max_source_tokens
        self.before_token = before_token
        self.batches: list[tuple[SourceRow, ...]] = []
        self._serving: dict[str, tuple[str, str, float]] = {}
        self._sizes: dict[str, int] = {}  # bytes of the payloads that are held
        self._known: set[str] = set()  # tasks whose place is known

    def source_tokens(self, source: str) -> int:
        """One token a character."""
        return len(source)

    def swap(self, task: str, snapshot_id: str, payload: bytes) -> None:
        """Serve ``payload`` for a task; raises SnapshotError when it is none of `fake_payload`."""
        mark, confidence = _content(task, payload)
        self._sizes[task] = len(payload)
        self._known = self._known | {task}
        self._serving = {**self._serving, task: (snapshot_id, mark, confidence)}

    def drop(self, task: str) -> None:
        """Stop serving a task, and forget its place."""
        self.unload(task)
        self._known = self._known - {task}

    def unload(self, task: str) -> None:
        """Let go of a task's snapshot, but not of its place."""
        self._serving = {name: held for name, held in self._serving.items() if name != task}
        self._sizes.pop(task, None)

    def know(self, task: str, payload: bytes) -> None:
        """Keep the task's place alone; raises SnapshotError as `swap` does."""
        _content(task, payload)
        self.unload(task)
        self._known = self._known | {task}

    def held_bytes(self, task: str) -> int:
        """The size of the payload that is held."""
        return self._sizes.get(task, 0)

    def snapshot_id(self, task: str) -> str | None:
        """The snapshot that serves a task."""
        held = self._serving.get(task)
        return held[0] if held else None

    def infer(self, sources: Sequence[str]) -> list[Inferred]:
        """The known tasks named before a source's first colon: one is it, two of "a|b" leave it open."""
        found = []
        for source in sources:
            names = [name for name in source.partition(":")[0].split("|") if name in self._known]
            match names:
                case [one]:
                    found.append(Inferred(one, 0.75))
                case _:
                    found.append(Inferred(None, 0.5, tuple(names)))
        return found

    def generate(self, rows: Sequence[SourceRow], limits: Limits) -> list[Generation]:
        """The reversed source, "~" and the mark; other answers end in "~2" and so on."""
        self.batches.append(tuple(rows))
        serving = self._serving
        held = [serving[row.task] for row in rows]
        wanted = [
            f"{row.source[::-1]}~{mark}" for row, (_, mark, _) in zip(rows, held, strict=True)
        ]
        stops: dict[int, Stop] = {}
        done = [0] * len(rows)
        for step in range(max(map(len, wanted), default=0)):
            for row, text in enumerate(wanted):
                if row in stops or step >= len(text):
                    continue
                self.before_token(row, step)
                stop = "length" if step >= limits.max_tokens else limits.stop(row)
                if stop is not None:
                    stops[row] = stop
                else:
                    done[row] = step + 1
        return [
            Generation(
                target=text[: done[row]],
                confidence=confidence,
                tokens=done[row],
                stop=stops.get(row, "end"),
                snapshot_id=snapshot_id,
                others=tuple(
                    Answer(f"{text}~{n}", confidence / 2 ** (n - 1))
                    for n in range(2, rows[row].n_best + 1)
                ),
            )
            for row, (text, (snapshot_id, _, confidence)) in enumerate(
                zip(wanted, held, strict=True)
            )
        ]

    def score(self, rows: Sequence[PairRow]) -> list[Score]:
        """Zero loss where the target is what `generate` answers, else one nat a token."""
        answers = self.generate([SourceRow(row.task, row.source) for row in rows], Limits())
        return [
            Score(
                0.0 if answer.target == row.target else float(len(row.target)),
                len(row.target),
                answer.target == row.target,
            )
            for row, answer in zip(rows, answers, strict=True)
        ]


def _content(task: str, payload: bytes) -> tuple[str, float]:
    """Mark and confidence of a `fake_payload`; raises SnapshotError."""
    try:
        content = json.loads(payload)
        mark, confidence = str(content["mark"]), float(content["confidence"])
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError("these bytes are no payload of the fake engine") from error
    if content.get("task") != task:
        raise SnapshotError(f"this snapshot belongs to another task than {task}")
    return mark, confidence
