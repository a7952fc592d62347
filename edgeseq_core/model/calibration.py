"""What a task may change of a frozen base: its calibration.

Per calibrated site (the top of the encoder and the whole decoder):

* ACM, attention calibration: a scale a head on the logits, scales on keys and values.
* FCM, feature calibration: scale and shift of the sub-layer's output, scale of the FFN's hidden units.
* a small low-rank part ``B A`` on every projection (q, k, v, o, up, down).

and per task: task tokens and a task vector, own embedding rows for the symbols of its targets (a delta
on a row the base knows, else on the mean of the symbol's byte rows), and a vocabulary bias (one number a
row, one for all other symbols).  A calibration that reaches the bottom of the encoder also has own rows
for the characters of its sources: a delta on each token that the character is written with, so that the
source stays the same tokens (one row in place of a character's bytes could not start as the identity).
Everything but tokens and vector starts at zero: the exact identity.

Source: Transformer Calibration (Yang, Li, Li; CoNLL 2022) for ACM and FCM, whose formulas are a
reconstruction (the paper's text was not available); LoRA (Hu et al. 2021) for the low-rank parts;
DyTox (Douillard et al. 2022) for task tokens.

Shapes: D = d_model, r = rank, H heads, F FFN width, R own rows, K task tokens, B rows of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.model.input_rows import InputRows
from edgeseq_core.model.nearest import FEATURES
from edgeseq_core.model.payload import (
    FORMAT,
    MAX_ROWS,
    PLACE,
    alphabet,
    extra_tokens,
    free_rows,
    most_rows,
    own_rows,
    read_payload,
)
from edgeseq_core.model.quantize import dequantize_rows, quantize_rows
from edgeseq_core.model.sites import Site, sites
from edgeseq_core.model.task_space import Place
from edgeseq_core.model.task_tokens import split
from edgeseq_core.text.vocabulary import EOS, FIRST_BYTE, SymbolTable, Vocabulary

SCALE = ".scale"
SOURCE_ROWS = "source_rows"


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How much of the base a task calibrates."""

    rank: int = 8
    encoder_layers: int = 1  # counted from the top; the decoder is always calibrated
    extra_tokens: int = 0  # task tokens beyond the base's
    most_rows: int = 2 * MAX_ROWS  # own rows, of targets and sources together


def calibrated_sites(model: ModelConfig, config: CalibrationConfig) -> list[Site]:
    """The sites a calibration touches, in network order."""
    first = model.encoder_layers - config.encoder_layers
    names = {f"encoder.{layer}" for layer in range(first, model.encoder_layers)}
    return [
        site
        for site in sites(model)
        if site.name.startswith("decoder") or site.name.rsplit(".", 1)[0] in names
    ]


class Owned(NamedTuple):
    """What a task has rows of its own for, in the order it was met; only ever longer."""

    symbols: Sequence[str] = ()  # characters of targets that the base lacks
    rows: Sequence[int] = (EOS,)  # token ids of targets
    source_symbols: Sequence[str] = ()  # characters of sources that the base lacks
    source_rows: Sequence[int] = ()  # ids of source characters

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> Owned:
        """As a snapshot or checkpoint names it; older ones have nothing for sources."""
        return cls(**{name: header[name] for name in cls._fields if name in header})

    def to_header(self) -> dict[str, list[Any]]:
        return {name: list(kept) for name, kept in self._asdict().items()}


class Calibration:
    """One task's calibration: named fp32 tensors, its symbols and its own rows."""

    def __init__(
        self,
        base: EdgeFormer,
        vocabulary: Vocabulary,
        config: CalibrationConfig,
        *,
        tensors: dict[str, Tensor] | None = None,
        owned: Owned | None = None,
        place: Place | None = None,
        seed: int = 0,
    ) -> None:
        self.base, self.config = base, config
        owned = owned or Owned()
        self.place = place or Place.none(
            base.config.d_model
        )  # of its sources; no output depends on it
        self.table = SymbolTable(vocabulary, owned.symbols, max_symbols=MAX_ROWS)
        self.rows = own_rows(self.table, owned.rows)  # append-only
        self._row_of = {token: at for at, token in enumerate(self.rows)}
        self.inputs = InputRows(vocabulary, owned.source_symbols, owned.source_rows)
        self.sites = calibrated_sites(base.config, config)
        self.splits = split(base.config.task_tokens, config.extra_tokens)
        self.tensors = tensors if tensors is not None else self._identity(seed)

    def _identity(self, seed: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        d = self.base.config.d_model
        out = {
            "token": self._first_tokens(),
            "vector": self.base.task_vector.detach().clone(),
            "rows": torch.zeros(len(self.rows), d),
            "row_bias": torch.zeros(len(self.rows)),
            "other_bias": torch.zeros(1),
        }
        for site in self.sites:
            for part, (rows, columns) in site.shapes.items():
                a = torch.randn(self.config.rank, columns, generator=draw) * columns**-0.5
                out[f"{site.name}.{part}.a"] = a
                out[f"{site.name}.{part}.b"] = torch.zeros(rows, self.config.rank)
            for name, width in factor_widths(site, self.base.config).items():
                out[f"{site.name}.{name}"] = torch.zeros(width)
        if self.inputs.rows:  # last, where they are when they are admitted later
            out[SOURCE_ROWS] = torch.zeros(len(self.inputs.rows), d)
        return out

    def _first_tokens(self) -> Tensor:
        tokens = list(self.base.task_tokens.detach())
        for origin in self.splits.origins:
            tokens.append(tokens[origin])
        return torch.stack(tokens)

    @property
    def owned(self) -> Owned:
        """What it has rows for."""
        inputs = self.inputs
        return Owned(self.table.symbols, tuple(self.rows), inputs.table.symbols, tuple(inputs.rows))

    @property
    def numbers(self) -> int:
        """How many numbers a task owns."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def share_of_base(self) -> float:
        """What a task adds to the base, in numbers: 0.1 is a tenth."""
        return self.numbers / self.base.config.parameters

    def admit(self, targets: Iterable[str]) -> int:
        """Give every symbol of the targets a row of its own while one is free, without changing an output.

        Returns how many.
        """
        added = 0
        for target in dict.fromkeys(targets):
            if not self._free_rows:
                break
            for character in dict.fromkeys(target):
                self.table.add(character)
            for token in self.table.encode(target):
                if token not in self._row_of and self._free_rows:
                    self._row_of[token] = len(self.rows)
                    self.rows.append(token)
                    added += 1
        if added:
            own, d = self.tensors, self.base.config.d_model
            with torch.no_grad():
                own["rows"] = torch.cat([own["rows"], torch.zeros(added, d)])
                own["row_bias"] = torch.cat([own["row_bias"], own["other_bias"].expand(added)])
        return added

    def admit_sources(self, sources: Iterable[str]) -> int:
        """Give characters of the sources rows of their own, if the bottom of the encoder is calibrated.

        No output changes.  Returns how many there are more.
        """
        if self.config.encoder_layers < self.base.config.encoder_layers:
            return 0
        room = max(0, self.config.most_rows - self.owned_rows)
        if added := self.inputs.admit(sources, room):
            new = torch.zeros(added, self.base.config.d_model)
            have = self.tensors.get(SOURCE_ROWS, new[:0])
            self.tensors[SOURCE_ROWS] = torch.cat([have.detach(), new])
        return added

    def input_table(self) -> Tensor:
        """Zeros, and after them the own rows of source symbols, ``[1 + rows, D]``."""
        none = torch.zeros(1, self.base.config.d_model)
        return torch.cat([none, self.tensors.get(SOURCE_ROWS, none[:0])])

    @property
    def owned_rows(self) -> int:
        """Own rows, of targets and sources together."""
        return len(self.rows) + len(self.inputs.rows)

    @property
    def _free_rows(self) -> int:
        return free_rows(self.rows, self.inputs.rows, self.config.most_rows)

    @property
    def alphabet(self) -> list[int]:
        """What is written with characters that targets have had, EOS included; all once no row is free."""
        return alphabet(self.table, self.rows, self._free_rows)

    def virtual_rows(self) -> Tensor:
        """Embeddings ``[own symbols, D]`` that new symbols start from: the mean of their byte rows."""
        table = self.base.embedding
        means = [
            table[[FIRST_BYTE + byte for byte in symbol.encode()]].mean(0)
            for symbol in self.table.symbols
        ]
        return torch.stack(means) if means else table.new_zeros(0, table.shape[1])

    # --- bytes -------------------------------------------------------------------------------------

    def to_payload(self, base_digest: str) -> bytes:
        """The int8 bytes that serve; equal content, equal bytes.

        Matrices are int8 per row, their scales and vectors fp16: low-rank parts have so few columns that
        scales in fp32 would be a fifth of the bytes.
        """
        stored: dict[str, Any] = {}
        for name, tensor in self.tensors.items():
            array = np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)
            if array.ndim == 2:
                stored[name], stored[name + SCALE] = quantize_rows(array, np.float16)
            else:
                stored[name] = array.astype(np.float16)
        stored[PLACE] = self.place.moments.numpy().astype(np.float32)
        header = {
            "format": FORMAT,
            "base": base_digest,
            "config": asdict(self.config),
            **self.owned.to_header(),
            "sources": self.place.sources,
            "features": FEATURES,
        }
        return save(stored, metadata={"header": json.dumps(header, sort_keys=True)})

    @classmethod
    def from_payload(
        cls, payload: bytes, base: EdgeFormer, vocabulary: Vocabulary, base_digest: str
    ) -> Calibration:
        """The calibration that the bytes stand for; raises SnapshotError when they do not fit the base."""
        header, raw = read_payload(payload, base_digest)
        try:
            return cls._read(header, raw, base, vocabulary)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SnapshotError(f"the snapshot's header makes no sense: {error}") from None

    @classmethod
    def _read(
        cls,
        header: Mapping[str, Any],
        raw: dict[str, NDArray[Any]],
        base: EdgeFormer,
        vocabulary: Vocabulary,
    ) -> Calibration:
        moments = raw.pop(PLACE, None)  # snapshots of before have none
        tensors = {
            name: torch.from_numpy(
                dequantize_rows(value, raw[name + SCALE])
                if value.dtype == np.int8
                else value.astype(np.float32)
            )
            for name, value in raw.items()
            if not (name.endswith(SCALE) and name[: -len(SCALE)] in raw)
        }
        numbers = {"extra_tokens": extra_tokens(header), "most_rows": most_rows(header)}
        config = CalibrationConfig(**header["config"] | numbers)
        made = cls(
            base,
            vocabulary,
            config,
            tensors=tensors,
            owned=Owned.of_header(header),
        )
        made._check_shapes()
        if moments is not None and header.get("features") == FEATURES:
            if moments.shape != made.place.moments.shape:
                raise SnapshotError(f"the snapshot's tensors do not fit the base: {PLACE}")
            made.place = Place(header["sources"], torch.from_numpy(moments))
        return made

    def _check_shapes(self) -> None:
        wanted = {name: tensor.shape for name, tensor in self._identity(0).items()}
        found = {name: tensor.shape for name, tensor in self.tensors.items()}
        if wanted != found:
            wrong = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
            raise SnapshotError(
                f"the snapshot's tensors do not fit the base: {', '.join(wrong[:3])}"
            )


# A projection's factors by the tensors that hold them: (output scale, output shift, input scale).
FACTORS: Mapping[str, tuple[str | None, str | None, str | None]] = {
    "q": ("logit", None, None),
    "k": ("key", None, None),
    "v": ("value", None, None),
    "o": ("scale", "shift", None),
    "up": (None, None, None),
    "down": ("scale", "shift", "hidden"),
    "gate": (None, "gate", None),
    "tails": (None, "tail", None),
}


def factor_widths(site: Site, config: ModelConfig) -> dict[str, int]:
    """How many numbers each factor of a site has."""
    d = config.d_model
    if site.kind == "attention":
        heads, kv = site.shapes["q"][0] // config.head_width, site.shapes["k"][0]
        return {"logit": heads, "key": kv, "value": kv, "scale": d, "shift": d}
    if site.kind == "ffn":
        return {"hidden": site.shapes["up"][0], "scale": d, "shift": d}
    if site.kind == "bands":
        return {"tail": len(config.bands)}
    return {"logit": 1, "key": config.head_width, "gate": 1}
