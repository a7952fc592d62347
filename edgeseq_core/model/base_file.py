"""The base as a file: int8 matrices in safetensors, with everything needed to read it in its header.

The header (one JSON text, so that equal content has equal bytes) holds the model's shape, the
vocabulary and free-form notes.  Nothing here needs torch: the consumer reads the header alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.quantize import dequantize_rows, quantize_rows
from edgeseq_core.text.subwords import Subwords
from edgeseq_core.text.vocabulary import Vocabulary

FORMAT = "edgeseq-base-1"
MAX_BASE_BYTES = 64 << 20
SHIPPED = "edgeseq-base-128.safetensors"
SCALE = ".scale"


@dataclass(frozen=True)
class BaseHeader:
    """What a base is, without its weights."""

    config: ModelConfig
    vocabulary: Vocabulary
    digest: str  # sha256 of the file
    notes: Mapping[str, Any]

    @property
    def record_digest(self) -> bytes:
        """8 bytes that name tokenizer and base in every stored pair."""
        return hashlib.sha256(f"{self.vocabulary.digest}:{self.digest}".encode()).digest()[:8]


class StoredBase(NamedTuple):
    """A base as it is stored: its header, and the whole file."""

    header: BaseHeader
    data: bytes


def shipped_path() -> Path:
    """Where the base that comes with the package lies."""
    return Path(str(files("edgeseq_core") / "base" / SHIPPED))


def write_base(
    path: Path,
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    config: ModelConfig,
    vocabulary: Vocabulary,
    notes: Mapping[str, Any],
) -> str:
    """Quantize matrices per row, keep vectors in fp32, write the file; returns its digest."""
    stored: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            stored[name], stored[name + SCALE] = quantize_rows(tensor)
        else:
            stored[name] = tensor.astype(np.float32)
    header = {
        "format": FORMAT,
        "config": config.to_json(),
        **_vocabulary_header(vocabulary),
        "notes": dict(notes),
    }
    data = save(stored, metadata={"header": json.dumps(header, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_header(path: Path | None = None) -> BaseHeader:
    """The header of a base file (None: the shipped one); raises SnapshotError when it is no base."""
    header, _, digest = _read(path)
    return _header(header, digest)


def read_base(path: Path | None = None) -> tuple[StoredBase, dict[str, NDArray[np.float32]]]:
    """A base file (None: the shipped one), and its dequantised fp32 tensors."""
    stored = read_bytes(path)
    raw = load(stored.data)
    tensors = {
        name: dequantize_rows(value, raw[name + SCALE]) if value.dtype == np.int8 else value
        for name, value in raw.items()
        if not name.endswith(SCALE)
    }
    return stored, tensors


def read_stored(path: Path | None = None) -> tuple[BaseHeader, dict[str, NDArray[Any]]]:
    """Header and arrays as they are stored: int8 matrices with their scales, fp32 vectors."""
    header, data = read_bytes(path)
    return header, load(data)


def read_bytes(path: Path | None = None) -> StoredBase:
    """Header and the whole file, its arrays unread."""
    header, data, digest = _read(path)
    return StoredBase(_header(header, digest), data)


def _read(path: Path | None) -> tuple[dict[str, Any], bytes, str]:
    path = path or shipped_path()
    try:
        if path.stat().st_size > MAX_BASE_BYTES:
            raise SnapshotError(f"{path} is larger than {MAX_BASE_BYTES} bytes: not a base")
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        header = json.loads(metadata["header"])
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SnapshotError(
            f"{path} is not an EdgeSeq base file ({error!r}): name another one"
        ) from None
    return header, data, hashlib.sha256(data).hexdigest()


def _header(header: dict[str, Any], digest: str) -> BaseHeader:
    try:
        config = ModelConfig(**header["config"])
        vocabulary = (
            Subwords(header["characters"], header["merges"])
            if "merges" in header
            else Vocabulary(header["characters"])
        )
        return BaseHeader(config, vocabulary, digest, header["notes"])
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(
            f"the header of base {digest[:12]} makes no sense ({error}): name another base"
        ) from None


def _vocabulary_header(vocabulary: Vocabulary) -> dict[str, Any]:
    merges = {"merges": vocabulary.merges} if isinstance(vocabulary, Subwords) else {}
    return {"characters": "".join(vocabulary.characters), **merges}
