"""Source front ends: from what a request holds to the vectors that the first encoder layer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from edgeseq_core.model.batch import pad
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.text.vocabulary import EOS, PAD, Vocabulary

Source_contra = TypeVar("Source_contra", contravariant=True)


class Embedded(NamedTuple):
    """Rows of vectors, filled up to the longest."""

    x: Tensor  # [B, S, D]
    real: Tensor  # [B, S], False at padding


class SourceFront(Protocol[Source_contra]):
    """Embeds sources of one kind; a row's vectors depend on its source alone."""

    def read(self, sources: Sequence[Source_contra]) -> Embedded:
        """One row a source; the encoder's layers do the rest (`EdgeFormer.run_encoder`)."""


class TextFront:
    """Texts as their tokens' embeddings, with EOS at the end."""

    def __init__(self, model: EdgeFormer, vocabulary: Vocabulary) -> None:
        self._model, self._vocabulary = model, vocabulary

    def read(self, sources: Sequence[str]) -> Embedded:
        ids = pad([[*self._vocabulary.encode(source), EOS] for source in sources])
        return Embedded(self._model.embed_source(ids), ids != PAD)


class Series(NamedTuple):
    """An irregular time series: what was measured, and when."""

    times: Tensor  # [N], in one unit throughout, ascending
    values: Tensor  # [N, channels]


class SeriesFront(nn.Module):
    """Each observation by one linear map of its values and of the time since the one before.

    Times enter as ``log(1 + gap)``, so that neither their origin nor rare long gaps matter much.  There
    is nothing to copy, so it goes with an output of the vocabulary alone.
    """

    def __init__(self, channels: int, d_model: int) -> None:
        super().__init__()
        self.embed = nn.Linear(channels + 1, d_model)

    def read(self, sources: Sequence[Series]) -> Embedded:
        rows = [
            torch.cat([times.diff(prepend=times[:1]).log1p()[:, None], values], 1)
            for times, values in sources
        ]
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(int(lengths.max())) < lengths[:, None]
        return Embedded(self.embed(pad_sequence(rows, batch_first=True)), real)
