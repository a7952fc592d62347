"""Our engines as peers: native, PyTorch in fp32, PyTorch with its own int8 products."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseq_core.engine import Engine, Limits, SourceRow
from edgeseq_core.evaluate.engines.models import BARE, BASE
from edgeseq_core.evaluate.engines.peer import TOKENS, Work, sources
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.native.engine import NativeEngine

LIMITS = Limits(max_tokens=TOKENS)


class OwnPeer:
    """An engine of ours with every calibration of a folder."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        for path in folder.glob("*.calibration"):
            engine.swap(path.stem, "1", path.read_bytes())

    def prepare(self, batch: int, tasks: int) -> Work:
        source = sources()[0]
        rows = [SourceRow(str(at % tasks) if tasks else BARE, source) for at in range(batch)]
        return lambda: self._engine.generate(rows, LIMITS)

    def answers(self, sources: Sequence[str]) -> list[str]:
        made = self._engine.generate([SourceRow(BARE, source) for source in sources], LIMITS)
        assert {one.tokens for one in made} == {TOKENS}
        return [one.target for one in made]


def native(folder: Path, threads: int, instructions: str | None) -> OwnPeer:
    """The native engine, with a set of instructions."""
    path = folder / BASE
    return OwnPeer(NativeEngine(path, instructions=instructions, threads=threads), folder)


def torch_fp32(folder: Path, threads: int, _: str | None) -> OwnPeer:
    """The PyTorch engine as it serves."""
    torch.set_num_threads(threads)
    return OwnPeer(TorchEngine(Base.load(folder / BASE)), folder)


def torch_int8(folder: Path, threads: int, _: str | None) -> OwnPeer:
    """The PyTorch engine with every product by PyTorch's dynamic int8, a scale a row of weights."""
    torch.set_num_threads(threads)
    return OwnPeer(Int8TorchEngine(Base.load(folder / BASE)), folder)


class Int8TorchEngine(TorchEngine):
    """As its parent, but one task a batch, and int8 products."""

    def swap(self, task: str, snapshot_id: str, payload: bytes) -> None:
        super().swap(task, snapshot_id, payload)
        served = self._bank[task]
        self._bank[task] = replace(served, folded=Int8Weights(served.calibration))


class Int8Weights(MergedWeights):
    """Folded weights, quantized by PyTorch when they are first used."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__(calibration)
        self._packed: dict[tuple[str, str], Any] = {}

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        if (site, part) not in self._packed:
            merged = self._merged.get((site, part))
            base = self.base
            weight, bias = merged or (base.matrix(site, part), base.bias(site, part))
            self._packed[site, part] = _packed(weight, bias)
        return _product(x, self._packed[site, part])

    def logits(self, hidden: Tensor) -> Tensor:
        if ("output", "") not in self._packed:
            self._packed["output", ""] = _packed(self.table, self.bias)
        return _product(hidden, self._packed["output", ""])


def _packed(weight: Tensor, bias: Tensor) -> Any:
    scale = weight.detach().abs().amax(1).clamp_min(1e-9).double() / 127
    with warnings.catch_warnings():  # deprecated, and the fastest that PyTorch has on CPUs
        warnings.simplefilter("ignore", UserWarning)
        zero = torch.zeros(len(scale), dtype=torch.long)
        whole = torch.quantize_per_channel(weight.detach(), scale, zero, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(whole, bias.detach())


def _product(x: Tensor, packed: Any) -> Tensor:
    found: Tensor = torch.ops.quantized.linear_dynamic(x, packed)
    return found
