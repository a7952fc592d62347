"""A base in the making: the network, and each task's own tokens and vector.

While a base is trained, each task has only task tokens and a task vector of its own; the encoder is
task-agnostic.  What a new task starts from is the mean of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.base_file import read_header, write_base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.model.mixture_batches import Pairs
from edgeseq_core.model.run_folder import CHECKPOINT, read_checkpoint, replace, run_path
from edgeseq_core.text.vocabulary import BOS, EOS, PAD, Vocabulary

DEV_BATCH = 256  # pairs


class TaskStarts(nn.Module):
    """Task tokens ``[N, K, D]`` and vectors ``[N, D]`` of N tasks."""

    def __init__(self, tasks: int, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(tasks, config.task_tokens, config.d_model) * 0.02)
        self.vectors = nn.Parameter(torch.zeros(tasks, config.d_model))


class Trainee(nn.Module):
    """An EdgeFormer with the starts of the tasks in ``names``, over one vocabulary."""

    def __init__(
        self, model: EdgeFormer, starts: TaskStarts, names: Sequence[str], vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.model, self.starts = model, starts
        self.names, self.vocabulary = tuple(names), vocabulary

    @classmethod
    def new(cls, config: ModelConfig, names: Sequence[str], vocabulary: Vocabulary) -> Trainee:
        """Random weights, drawn from torch's own generator."""
        return cls(EdgeFormer(config), TaskStarts(len(names), config), names, vocabulary)

    @classmethod
    def of_base(cls, model: EdgeFormer, names: Sequence[str], vocabulary: Vocabulary) -> Trainee:
        """A finished base, trainable again; every task starts where a new task would."""
        trainee = cls.new(model.config, names, vocabulary)
        trainee.model.load_state_dict(model.state_dict())
        with torch.no_grad():
            trainee.starts.tokens.copy_(model.task_tokens.expand_as(trainee.starts.tokens))
            trainee.starts.vectors.copy_(model.task_vector.expand_as(trainee.starts.vectors))
        return trainee

    @classmethod
    def of_run(cls, out: Path) -> Trainee:
        """The trainee of the finished run that made the base ``out``: fp32, with its tasks' own starts.

        Raises ConfigError when the base has no run folder, SnapshotError when it is no base.
        """
        header = read_header(out)
        _, tensors = read_checkpoint(run_path(out) / CHECKPOINT)
        trainee = cls.new(header.config, sorted(header.notes.get("tasks", ())), header.vocabulary)
        try:
            trainee.load_state_dict({name: tensors[name] for name in trainee.state_dict()})
        except (KeyError, RuntimeError):
            raise ConfigError(
                f"{run_path(out)} is not the finished run of {out}: let it end, or name another base"
            ) from None
        return trainee

    @property
    def device(self) -> torch.device:
        return self.model.embedding.device

    def weights(self, tasks: Tensor) -> BaseWeights:
        """The network's weights for rows of the tasks ``[B]``."""
        return BaseWeights(
            self.model, self.starts.tokens[tasks], self.starts.vectors[tasks][:, None]
        )

    def forward(
        self, source: Tensor, target: Tensor, tasks: Tensor, symbols: Tensor | None = None
    ) -> Tensor:
        """Scores ``[B, T, V]`` of each next token, from ``[B, S]``, ``[B, T]`` and ``[B]``.

        ``symbols [B, S]`` are the target symbols that the source's tokens stand for, by default the tokens.
        """
        scores: Tensor = self.model(source, target, self.weights(tasks), symbols)
        return scores

    @torch.no_grad()
    def dev_exact(self, name: str, pairs: Pairs) -> float:
        """Share of pairs whose every next token is right under teacher forcing (= greedy exact match)."""
        right = 0
        for source, target in _chunks(pairs, self.vocabulary, self.device):
            tasks = torch.full((len(source),), self.names.index(name), device=self.device)
            best, wanted = self(source, target[:, :-1], tasks).argmax(-1), target[:, 1:]
            right += int(((best == wanted) | (wanted == PAD)).all(1).sum())
        return right / len(pairs)

    def write(self, out: Path, notes: Mapping[str, Any]) -> None:
        """Write the base as int8, with the mean of the tasks' starts for new tasks."""
        with torch.no_grad():
            self.model.task_tokens.copy_(self.starts.tokens.mean(0))
            self.model.task_vector.copy_(self.starts.vectors.mean(0))
        tensors = {n: p.detach().cpu().numpy() for n, p in self.model.named_parameters()}
        config, vocabulary = self.model.config, self.vocabulary

        def write(file: Path) -> None:
            write_base(file, tensors, config=config, vocabulary=vocabulary, notes=notes)

        replace(out, write)


def _chunks(
    pairs: Pairs, vocabulary: Vocabulary, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    for at in range(0, len(pairs), DEV_BATCH):
        chunk = pairs[at : at + DEV_BATCH]
        yield (
            pad([[*vocabulary.encode(source), EOS] for source, _ in chunk]).to(device),
            pad([[BOS, *vocabulary.encode(target), EOS] for _, target in chunk]).to(device),
        )
