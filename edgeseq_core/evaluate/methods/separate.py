"""One model per task: full fine-tuning with replay of the task's own pairs, and no way to forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.method import Stored, Terms
from edgeseq_core.evaluate.methods.replay import ExperienceReplay


class OneModelPerTask:
    """A whole model of its own for each task; it takes the most bytes."""

    online: ClassVar[bool] = True

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._models: dict[str, ExperienceReplay] = {}

    def _model(self, task: str) -> ExperienceReplay:
        if task not in self._models:
            self._models[task] = ExperienceReplay(replace(self._terms, tasks=[task]))
        return self._models[task]

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        self._model(task).learn(task, pairs)

    def end(self, *, last: bool) -> None:
        """Its model stays."""

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        return self._model(task).answers(task, sources)

    def stored(self) -> Stored:
        parts = [model.stored() for model in self._models.values()]
        return Stored(sum(part.model for part in parts), sum(part.buffer for part in parts))
