"""A teacher: one finished run or several, whose probabilities are averaged.

Word-level lessons are what it says of the labels' tokens; sequence-level lessons are its own greedy
answers, for which a source needs no label (Kim and Rush 2016, arXiv 1606.07947, sections 3.1, 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.batch import pad
from edgeseq_core.model.lessons import Lessons, TopK, top_k
from edgeseq_core.model.mixture_batches import Pairs
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.vocabulary import BOS, EOS

Level = Literal["word", "sequence"]
BATCH = 128  # sources
MAX_ANSWER = 64  # tokens; the mixture's targets have at most 48 characters


class Teacher:
    """An ensemble over one vocabulary; raises ConfigError when its members do not fit together."""

    def __init__(self, members: Sequence[Trainee]) -> None:
        self._members = [member.eval() for member in members]
        self.vocabulary = members[0].vocabulary
        if {member.vocabulary.digest for member in members} != {self.vocabulary.digest}:
            raise ConfigError(
                "the teachers have different vocabularies: train them on the same data"
            )

    @torch.no_grad()
    def log_probabilities(
        self, source: Tensor, target: Tensor, task: str, *, temperature: float = 1.0
    ) -> Tensor:
        """Of each next token, ``[B, T, V]``, from ``[B, S]`` and ``[B, T]``."""
        said = []
        for member in self._members:
            scores = member(source, target, self._tasks(member, task, len(source)))
            said.append((scores / temperature).log_softmax(-1))
        return _mean(said)

    @torch.no_grad()
    def answers(self, source: Tensor, task: str) -> list[list[int] | None]:
        """Greedy answers without EOS to sources ``[B, S]``; None for one that does not end."""
        rows = len(source)
        states = []
        for member in self._members:
            weights = member.weights(self._tasks(member, task, rows))
            cache = member.model.new_cache(rows, MAX_ANSWER)
            states.append((member.model, member.model.encode(source, weights), weights, cache))
        token, tokens = torch.full((rows, 1), BOS, device=source.device), []
        for _ in range(MAX_ANSWER):
            scores = [m.scores(token, memory, w, c) for m, memory, w, c in states]
            token = _mean([one.log_softmax(-1) for one in scores])[:, -1:].argmax(-1)
            tokens.append(token)
            if all((torch.cat(tokens, 1) == EOS).any(1).tolist()):
                break
        said: list[list[int]] = torch.cat(tokens, 1).tolist()
        return [row[: row.index(EOS)] if EOS in row else None for row in said]

    def lessons(
        self, task: str, pairs: Pairs, *, level: Level, k: int, temperature: float = 1.0
    ) -> Lessons:
        """Lessons on a task's pairs; at sequence level their targets are not looked at."""
        places: list[int] = []
        targets: list[list[int]] = []
        said: list[TopK] = []
        # Of about equal lengths, so that little is padding; the order of lessons does not matter.
        order = sorted(range(len(pairs)), key=lambda at: (len(pairs[at][0]), len(pairs[at][1])))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids = [[*self.vocabulary.encode(pairs[at][0]), EOS] for at in chosen]
            device = self._members[0].device
            source = pad(ids).to(device)
            if level == "word":
                wanted: list[list[int] | None] = [
                    self.vocabulary.encode(pairs[at][1]) for at in chosen
                ]
            else:
                wanted = [self._sayable(answer) for answer in self.answers(source, task)]
            kept = [at for at, answer in enumerate(wanted) if answer is not None]
            if not kept:
                continue
            answers = [[BOS, *(wanted[at] or []), EOS] for at in kept]
            target = pad(answers).to(device)[:, :-1]
            spoken = self.log_probabilities(source[kept], target, task, temperature=temperature)
            best = top_k(spoken.cpu(), k)
            for row, answer in enumerate(answers):
                length = len(answer) - 1
                said.append(TopK(best.ids[row, :length], best.log_probabilities[row, :length]))
            places += [chosen[at] for at in kept]
            targets += [answer[1:] for answer in answers]
        return _packed(places, targets, said, k, temperature)

    def _sayable(self, answer: list[int] | None) -> list[int] | None:
        """The answer, unless as a text it would be read as other tokens (broken runs of bytes)."""
        if answer is None:
            return None
        return answer if self.vocabulary.encode(self.vocabulary.decode(answer)) == answer else None

    def _tasks(self, member: Trainee, task: str, rows: int) -> Tensor:
        if task not in member.names:
            raise ConfigError(f"a teacher has not learnt {task}: choose one trained on this data")
        return torch.full((rows,), member.names.index(task), device=member.device)


def _mean(log_probabilities: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean probability."""
    return torch.stack(list(log_probabilities)).logsumexp(0) - math.log(len(log_probabilities))


def _packed(
    places: list[int], targets: list[list[int]], said: list[TopK], k: int, temperature: float
) -> Lessons:
    blank = TopK(torch.zeros(0, k, dtype=torch.long), torch.zeros(0, k))
    rows = [blank, *said]
    return Lessons(
        places=np.array(places, np.int32),
        starts=np.cumsum([0, *map(len, targets)]),
        targets=np.array([token for target in targets for token in target], np.uint16),
        ids=torch.cat([row.ids for row in rows]).numpy().astype(np.uint16),
        log_probabilities=torch.cat([row.log_probabilities for row in rows])
        .numpy()
        .astype(np.float16),
        temperature=temperature,
    )
