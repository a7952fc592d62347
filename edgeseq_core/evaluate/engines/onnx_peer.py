"""ONNX Runtime: the whole greedy loop in one graph (`onnx_export`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeseq_core.evaluate.engines.models import BASE
from edgeseq_core.evaluate.engines.onnx_export import GREEDY, export
from edgeseq_core.evaluate.engines.peer import TOKENS, Work, sources
from edgeseq_core.model.base_file import read_header
from edgeseq_core.text.vocabulary import BOS, EOS


class OnnxPeer:
    """Its answers."""

    def __init__(self, folder: Path, threads: int) -> None:
        into = folder / "onnx"
        if not into.exists():
            export(folder, into)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(into / GREEDY), options, providers=["CPUExecutionProvider"]
        )
        header = read_header(folder / BASE)
        self._config, self._vocabulary = header.config, header.vocabulary

    def prepare(self, batch: int, _tasks: int) -> Work:
        given = self._given(sources()[:1] * batch)
        return lambda: self._session.run(None, given)

    def answers(self, sources: Sequence[str]) -> list[str]:
        (tokens,) = self._session.run(["tokens"], self._given(sources))  # [T, B, 1]
        return [self._vocabulary.decode(row) for row in tokens[:, :, 0].T.tolist()]

    def _given(self, sources: Sequence[str]) -> dict[str, NDArray[Any]]:
        ids = [[*self._vocabulary.encode(source), EOS] for source in sources]
        rows, heads = len(ids), self._config.heads
        empty = np.zeros((rows, heads, 0, self._config.head_width), np.float32)
        past = [f"{name}_start" for name in _past(self._config.decoder_layers)]
        return {
            "source": np.array(ids, np.int64),
            "turns": np.array(TOKENS, np.int64),
            "first": np.full((rows, 1), BOS, np.int64),
        } | dict.fromkeys(past, empty)


def _past(layers: int) -> list[str]:
    """Names of the decoder's keys and values before a step."""
    return [f"p{part}{layer}" for layer in range(layers) for part in "kv"]
