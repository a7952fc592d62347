"""A base as calibrations make it: folded for one task, gathered for a batch of many tasks.

A step that trains a calibration alone has weights of its own (`learning_weights`).

Shapes: D = d_model, r = rank, R own rows, V symbols of the base, B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from edgeseq_core.model.batch import pad
from edgeseq_core.model.calibration import FACTORS, Calibration
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.model.layout import ROWS, Layout
from edgeseq_core.model.sites import Site


class OneTask:
    """What the weights of one task are, however its matrices are used."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration, self.base = calibration, calibration.base

    def task_scores(self, rows: int) -> Tensor:
        return torch.tensor(self.calibration.splits.scores).expand(rows, -1)

    def own_inputs(self, sources: Sequence[str]) -> Tensor | None:
        if not self.calibration.inputs.rows:
            return None
        rows = pad([self.calibration.inputs.of(source) for source in sources])
        return F.embedding(rows, self.calibration.input_table())

    @property
    def frozen_layers(self) -> int:
        return self.base.config.encoder_layers - self.calibration.config.encoder_layers


class MergedWeights(OneTask):
    """A base with one task's calibration folded into its matrices: to answer, and where the base learns too.

    ``W' = (1 + s_out) * (W + B A) * (1 + s_in)`` and ``b' = (1 + s_out) * b + t``; gradients flow to the
    calibration, and to a base that is not frozen.  The token table is the base's with own rows added.
    """

    def __init__(self, calibration: Calibration) -> None:
        super().__init__(calibration)
        own = calibration.tensors
        self._merged: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        for site in calibration.sites:
            for part in site.parts:
                self._merged[site.name, part] = self._merge(site, part)
        table = torch.cat([self.base.tokens.table(), calibration.virtual_rows()])
        rows = torch.tensor(calibration.rows)
        self.table = table.index_add(0, rows, own["rows"])
        bias = F.pad(self.base.vocabulary_bias, (0, len(calibration.table.symbols)))
        self.bias = (bias + own["other_bias"]).index_add(
            0, rows, own["row_bias"] - own["other_bias"]
        )

    def _merge(self, site: Site, part: str) -> tuple[Tensor, Tensor]:
        own = self.calibration.tensors
        weight, bias = self.base.matrix(site.name, part), self.base.bias(site.name, part)
        weight = torch.addmm(weight, own[f"{site.name}.{part}.b"], own[f"{site.name}.{part}.a"])
        scale, shift, hidden = FACTORS[part]
        if hidden:
            weight = weight * (1 + own[f"{site.name}.{hidden}"])
        if scale:
            factor = 1 + own[f"{site.name}.{scale}"]
            if part == "q":
                factor = factor.repeat_interleave(self.base.config.head_width)
            weight, bias = weight * factor[:, None], bias * factor
        if shift:
            bias = bias + own[f"{site.name}.{shift}"]
        return weight, bias

    def held_bytes(self) -> int:
        """Memory of what was folded, which a calibration's own tensors come beside."""
        folded = [self.table, self.bias, *(t for pair in self._merged.values() for t in pair)]
        return sum(one.nbytes for one in folded)

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        merged = self._merged.get((site, part))
        if merged is None:
            return F.linear(x, self.base.matrix(site, part), self.base.bias(site, part))
        return F.linear(x, *merged)

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.table, self.bias)

    def task(self, rows: int) -> tuple[Tensor, Tensor]:
        own = self.calibration.tensors
        return own["token"].expand(rows, -1, -1), own["vector"].expand(rows, 1, -1)

    def layout(self, _real: Tensor) -> Layout:
        return ROWS


class GatheredWeights:
    """A base and rows of many tasks in one batch: the serving view.

    ``calibrations`` are the distinct tasks of the batch, ``index [B]`` names each row's.  Low-rank parts
    and factors are gathered by row; where a task has a lower rank, fewer layers or fewer tokens than
    another, zeros stand in (nobody attends to such tokens).  Symbols beyond a row's own table can never win.
    """

    def __init__(
        self, base: EdgeFormer, calibrations: Sequence[Calibration], index: Tensor
    ) -> None:
        self.base, self.index = base, index
        self._calibrations = calibrations
        self._all = [calibration.tensors for calibration in calibrations]
        self._token, self._vector = self._gather("token"), self._gather("vector")[:, None]
        scores = [torch.tensor(calibration.splits.scores) for calibration in calibrations]
        self._task_scores = pad_sequence(scores, batch_first=True, padding_value=-torch.inf)[index]
        depth = max(calibration.config.encoder_layers for calibration in calibrations)
        self.frozen_layers = base.config.encoder_layers - depth
        self._part: dict[tuple[str, str], list[Tensor | None]] = {}
        self._ranked = {site.name for calibration in calibrations for site in calibration.sites}
        self._own(calibrations)

    def _own(self, calibrations: Sequence[Calibration]) -> None:
        """Pad own rows, their ids, and the new symbols' virtual rows to the longest task."""
        d, vocabulary = self.base.config.d_model, self.base.config.vocabulary_size
        most_rows = max(len(c.rows) for c in calibrations)
        self.extra = max(len(c.table.symbols) for c in calibrations)
        tasks, size = len(calibrations), vocabulary + self.extra
        delta = torch.zeros(tasks, most_rows + 1, d)  # the last row stays zero: "no own row"
        row_of = torch.full((tasks, size), most_rows)
        virtual = torch.zeros(tasks, self.extra, d)
        bias = torch.full((tasks, size), -torch.inf)
        for at, calibration in enumerate(calibrations):
            rows, own = torch.tensor(calibration.rows), calibration.tensors
            known = vocabulary + len(calibration.table.symbols)
            delta[at, : len(rows)] = own["rows"]
            row_of[at, rows] = torch.arange(len(rows))
            virtual[at, : known - vocabulary] = calibration.virtual_rows()
            bias[at, :known] = own["other_bias"]
            bias[at, :vocabulary] += self.base.vocabulary_bias
            bias[at, rows] += own["row_bias"] - own["other_bias"]
        self.delta, self.row_of = delta[self.index], row_of[self.index]
        self.virtual, self.bias = virtual[self.index], bias[self.index][:, None]

    def _gather(self, name: str) -> Tensor:
        """A tensor of each row's task, ``[B, ...]``; zeros where the task's is smaller or missing."""
        found = [tensors.get(name) for tensors in self._all]
        largest = torch.tensor([one.shape for one in found if one is not None]).amax(0)
        stacked = torch.zeros(len(found), *largest.tolist())
        for all_of_it, one in zip(stacked, found, strict=True):
            if one is not None:
                all_of_it[tuple(map(slice, one.shape))] = one
        return stacked[self.index]

    def _parts(self, site: str, part: str) -> list[Tensor | None]:
        """Gathered ``a [B, r, in]``, ``b [B, r, out]``, and factors ``[B, 1, width]``, made once a batch."""
        found = self._part.get((site, part))
        if found is None:
            scale, shift, hidden = FACTORS[part]
            a, b = self._gather(f"{site}.{part}.a"), self._gather(f"{site}.{part}.b")
            factors = [
                self._gather(f"{site}.{name}")[:, None] if name else None
                for name in (scale, shift, hidden)
            ]
            if part == "q" and factors[0] is not None:
                factors[0] = factors[0].repeat_interleave(self.base.config.head_width, -1)
            found = [a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous(), *factors]
            self._part[site, part] = found
        return found

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        weight, bias = self.base.matrix(site, part), self.base.bias(site, part)
        if site not in self._ranked:
            return F.linear(x, weight, bias)
        a, b, scale, shift, hidden = self._parts(site, part)
        assert a is not None
        assert b is not None
        if hidden is not None:
            x = torch.addcmul(x, x, hidden)
        y = F.linear(x, weight, bias) + torch.bmm(torch.bmm(x, a), b)
        if scale is not None:
            y = torch.addcmul(y, y, scale)
        return y if shift is None else y + shift

    def embed(self, ids: Tensor) -> Tensor:
        size = self.base.config.vocabulary_size
        known = self.base.tokens.look_up(ids.clamp(max=size - 1))
        if self.extra:
            at = (ids - size).clamp(min=0)[..., None].expand(-1, -1, known.shape[-1])
            known = torch.where((ids >= size)[..., None], self.virtual.gather(1, at), known)
        own = self.row_of.gather(1, ids)[..., None].expand(-1, -1, known.shape[-1])
        return known + self.delta.gather(1, own)

    def logits(self, hidden: Tensor) -> Tensor:
        scores = self.base.tokens.score(hidden)
        if self.extra:
            scores = torch.cat([scores, torch.bmm(hidden, self.virtual.transpose(1, 2))], -1)
        own = torch.bmm(
            hidden, self.delta.transpose(1, 2)
        )  # [B, T, R + 1]; the last column is zero
        spread = own.gather(2, self.row_of[:, None].expand(-1, hidden.shape[1], -1))
        return scores + spread + self.bias

    def own_inputs(self, sources: Sequence[str]) -> Tensor | None:
        if not any(calibration.inputs.rows for calibration in self._calibrations):
            return None
        index = self.index.tolist()
        rows = [self._calibrations[i].inputs.of(s) for i, s in zip(index, sources, strict=True)]
        tables = [calibration.input_table() for calibration in self._calibrations]
        return pad_sequence(tables, batch_first=True)[self.index[:, None], pad(rows)]

    def task(self, rows: int) -> tuple[Tensor, Tensor]:
        assert rows == len(self.index)
        return self._token, self._vector

    def task_scores(self, rows: int) -> Tensor:
        assert rows == len(self.index)
        return self._task_scores

    def layout(self, _real: Tensor) -> Layout:
        return ROWS  # each row has weights of its own
