"""The native engine: int8 products in C++, without torch, for the bases that it expresses.

A snapshot's scales and shifts are folded into how sums are finished; its low-rank parts stay int8.
Activations are quantized a row at a time, so a row's bits depend neither on its neighbours nor on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeseq_core.engine import (
    Generation,
    Inferred,
    Limits,
    PairRow,
    Score,
    SourceRow,
    Stop,
    never,
)
from edgeseq_core.errors import ConfigError, SnapshotError
from edgeseq_core.model.answers import TEMPERATURE, Found, Hypothesis, generation
from edgeseq_core.model.base_file import StoredBase, read_bytes
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.input_rows import InputRows
from edgeseq_core.model.nearest import FEATURES, LAYERS, nearest
from edgeseq_core.model.payload import (
    MAX_ROWS,
    PLACE,
    alphabet,
    check_size,
    extra_tokens,
    free_rows,
    most_rows,
    no_calibration,
    own_rows,
    read_header,
)
from edgeseq_core.model.task_tokens import split
from edgeseq_core.text.vocabulary import EOS, FIRST_BYTE, SymbolTable

native: Any
try:
    native = import_module("edgeseq_core.native._engine")
except ImportError:  # not built: no compiler, or one that is too old
    native = None

# What the C++ is written for; a base with anything else is served by PyTorch.
EXPRESSED = {
    "adaptation": "bias",
    "norm": "pre-rms",
    "positions": "rotary",
    "encoder_mixer": "attention",
    "decoder_mixer": "attention",
}
LANES = 16


def why_not(config: ModelConfig) -> str | None:
    """Why the native engine cannot serve such a base here; None where it can."""
    if native is None:
        return "it was not built: install again where a C++17 compiler is"
    for name, value in EXPRESSED.items():
        if getattr(config, name) != value:
            return f"it has no {name} {getattr(config, name)!r}"
    if config.d_model % LANES or config.head_width % LANES:
        return f"d_model and the width of a head must be multiples of {LANES}"
    return None


class _Place(NamedTuple):
    sources: int
    moments: NDArray[Any]


class _Served(NamedTuple):
    """One immutable entry of the bank: read once a batch, replaced as a whole.

    ``said`` is its header without the number of sources: the next snapshot of a task mostly says the same.
    """

    snapshot_id: str
    said: str
    table: SymbolTable
    inputs: InputRows
    calibration: Any  # of the extension module


class NativeEngine:
    """Serves any mix of tasks in one batch; a swap replaces one dictionary entry.

    ``instructions`` forces a set of instructions, by default the best that the CPU has.
    Raises SnapshotError for a file that is no base, ConfigError for one that needs PyTorch.
    """

    def __init__(
        self,
        base: Path | StoredBase | None = None,
        *,
        instructions: str | None = None,
        threads: int = 1,
    ) -> None:
        self._header, data = base if isinstance(base, StoredBase) else read_bytes(base)
        reason = why_not(self._header.config)
        if reason:
            raise ConfigError(f"the native engine cannot serve this base: {reason}")
        found = native.instruction_sets()
        if instructions and instructions not in found:
            raise ConfigError(f"this CPU or build has {', '.join(found)}, not {instructions}")
        try:
            model = native.Model(_shape(self._header.config), native.Stored(data))
        except ValueError as error:
            raise SnapshotError(f"the base's tensors do not fit its header: {error}") from None
        self._engine = native.Engine(model, instructions or found[0])
        self._layouts = native.Layouts()
        self._threads = threads
        self._bank: dict[str, _Served] = {}
        self._places: dict[str, _Place] = {}  # of the bank's tasks, and of unloaded ones

    @property
    def instructions(self) -> str:
        """The set of instructions that it computes with."""
        name: str = self._engine.instructions
        return name

    @property
    def base_digest(self) -> str:
        return self._header.digest

    @property
    def max_source_tokens(self) -> int:
        return self._header.config.max_tokens - 1

    def source_tokens(self, source: str) -> int:
        return len(self._header.vocabulary.encode(source)) + 1

    def swap(self, task: str, snapshot_id: str, payload: bytes) -> None:
        self._bank[task], self._places[task] = self._read(task, snapshot_id, payload)

    def drop(self, task: str) -> None:
        self._bank.pop(task, None)
        self._places.pop(task, None)

    def unload(self, task: str) -> None:
        self._bank.pop(task, None)

    def know(self, task: str, payload: bytes) -> None:
        stored, header = self._open(payload)
        with _Fitting():
            self._places[task] = self._place(header, stored.take(PLACE))
        self._bank.pop(task, None)

    def snapshot_id(self, task: str) -> str | None:
        served = self._bank.get(task)
        return served.snapshot_id if served else None

    def held_bytes(self, task: str) -> int:
        served = self._bank.get(task)
        return served.calibration.bytes if served else 0

    def infer(self, sources: Sequence[str]) -> list[Inferred]:
        features = self._engine.features([self._ids(one) for one in sources], LAYERS)
        return nearest(features, dict(self._places))

    def generate(self, rows: Sequence[SourceRow], limits: Limits) -> list[Generation]:
        served = [self._bank[row.task] for row in rows]
        requests = [
            self._request(one, row.source, row.n_best, row.constrained)
            for one, row in zip(served, rows, strict=True)
        ]
        ask = None if limits.stop is never else _asking(limits.stop)
        made = self._engine.generate(requests, limits.max_tokens, TEMPERATURE, ask, self._threads)
        return [
            generation(_found(one), served_by.table, served_by.snapshot_id)
            for one, served_by in zip(made, served, strict=True)
        ]

    def score(self, rows: Sequence[PairRow]) -> list[Score]:
        requests, wanted = self._pairs(rows)
        made = self._engine.score(requests, wanted, self._threads)
        return [Score(one.loss, one.tokens, one.exact) for one in made]

    def logits(self, row: PairRow) -> NDArray[np.float32]:
        """Teacher-forced scores ``[T, V + own]`` of a pair's next tokens, before any temperature."""
        (found,) = self._engine.logits(*self._pairs([row]))
        scores: NDArray[np.float32] = found
        return scores

    def _pairs(self, rows: Sequence[PairRow]) -> tuple[list[Any], list[list[int]]]:
        served = [self._bank[row.task] for row in rows]
        requests = [self._request(one, row.source) for one, row in zip(served, rows, strict=True)]
        wanted = [
            [*one.table.encode(row.target), EOS] for one, row in zip(served, rows, strict=True)
        ]
        return requests, wanted

    def _request(self, served: _Served, source: str, *more: object) -> Any:
        own = served.inputs.of(source) if served.inputs.rows else []
        copies = self._header.config.output == "copy"
        symbols = [*served.table.of_source(source), EOS] if copies else []
        return native.Request(self._ids(source), own, symbols, served.calibration, *more)

    def _ids(self, source: str) -> list[int]:
        return [*self._header.vocabulary.encode(source), EOS]

    def _open(self, payload: bytes) -> tuple[Any, dict[str, Any]]:
        """The stored arrays, none read yet, and the header."""
        check_size(payload)
        try:
            stored = native.Stored(payload, self._layouts)
            text = stored.header
        except ValueError as error:
            raise no_calibration(error) from None
        return stored, read_header(text, self.base_digest)

    def _read(self, task: str, snapshot_id: str, payload: bytes) -> tuple[_Served, _Place]:
        stored, header = self._open(payload)
        with _Fitting():
            place = self._place(header, stored.take(PLACE))
            said = stored.header.replace(f'"sources": {header.get("sources")}', "")
            before = self._bank.get(task)
            if before and before.said == said:
                table, inputs, shape = before.table, before.inputs, before.calibration.shape
            else:
                vocabulary = self._header.vocabulary
                table = SymbolTable(vocabulary, header["symbols"], max_symbols=MAX_ROWS)
                inputs = InputRows.of_header(vocabulary, header)
                shape = native.CalibrationShape(self._calibration_shape(header, table, inputs))
            calibration = self._engine.calibration(shape, stored)
        return _Served(snapshot_id, said, table, inputs, calibration), place

    def _place(self, header: dict[str, Any], moments: NDArray[Any] | None) -> _Place:
        shape = 2, self._header.config.d_model
        if moments is None or header.get("features") != FEATURES:
            return _Place(0, np.zeros(shape, np.float32))
        if moments.shape != shape:
            raise ValueError(PLACE)
        return _Place(int(header["sources"]), moments)

    def _calibration_shape(
        self, header: dict[str, Any], table: SymbolTable, inputs: InputRows
    ) -> dict[str, Any]:
        config, rows = header["config"], own_rows(table, header["rows"])
        free = free_rows(rows, inputs.rows, most_rows(header))
        scores = split(self._header.config.task_tokens, extra_tokens(header)).scores
        return {
            "rank": config["rank"],
            "encoder_layers": config["encoder_layers"],
            "task_tokens": len(scores),
            "task_scores": scores,
            "rows": rows,
            "symbols": [[FIRST_BYTE + byte for byte in s.encode()] for s in table.symbols],
            "alphabet": alphabet(table, rows, free),
            "source_rows": len(inputs.rows),
        }


class _Fitting:
    """What is wrong with a snapshot's arrays or header, in one sentence."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (ValueError, KeyError, TypeError, RuntimeError)):
            raise SnapshotError(f"the snapshot's tensors do not fit the base: {error}") from None


def _shape(config: ModelConfig) -> dict[str, Any]:
    """The widths of all parts, as the C++ wants them."""
    groups, layers = range(config.attention_groups), range(config.decoder_layers)
    return {
        "vocabulary": config.vocabulary_size,
        "d_model": config.d_model,
        "head_width": config.head_width,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "task_tokens": config.task_tokens,
        "max_tokens": config.max_tokens,
        "query_width": [config.attention_width(group) for group in groups],
        "key_width": [config.kv_width(group) for group in groups],
        "encoder_ffn": [config.encoder_width(group) for group in range(config.ffn_groups)],
        "decoder_ffn": [config.decoder_width(layer) for layer in layers],
        "copies": config.output == "copy",
        "tail_sizes": [size for size, _ in config.tails] if config.bands else [],
        "tail_widths": [width for _, width in config.tails] if config.bands else [],
    }


def _asking(stop: Callable[[int], Stop | None]) -> Callable[[list[int]], list[Any]]:
    """Asks once for all rows that go on."""
    return lambda rows: [getattr(native.Stop, stop(row) or "none") for row in rows]


def _found(made: Any) -> Found:
    hypotheses = [Hypothesis(one.tokens, one.log_probability) for one in made.hypotheses]
    return Found(hypotheses, made.stop.name)
