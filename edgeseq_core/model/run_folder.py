"""The folder of a training run: its checkpoint and its curves, beside the base it makes.

``base.safetensors`` has ``base.run/`` beside it:

* ``checkpoint.safetensors``: all that decides the next step, replaced as a whole;
* ``curves.csv`` and ``curves.png``: one row a report.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.curves import draw, require_matplotlib

FORMAT = "edgeseq-run-1"
CHECKPOINT = "checkpoint.safetensors"


class RunFolder:
    """Keeps one run; ``identity`` is what a checkpoint must agree with: settings, data, version.

    Raises MissingExtraError when the curves could not be drawn: now, not after a long run.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        require_matplotlib()
        self.path = run_path(out)
        self._identity = json.loads(json.dumps(identity))  # as it comes back from a file

    def save(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace the checkpoint; a kill at any moment leaves the old one or the new one."""
        header = {"format": FORMAT, "identity": self._identity, "state": state}
        data = save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            metadata={"header": json.dumps(header)},
        )
        replace(self.path / CHECKPOINT, lambda file: file.write_bytes(data))

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """State and tensors of the checkpoint, None when there is none yet.

        Raises ConfigError when it is unreadable or belongs to a run with other settings or data.
        """
        file = self.path / CHECKPOINT
        if not file.exists():
            return None
        header, tensors = read_checkpoint(file)
        differing = _differences(header["identity"], self._identity)
        if differing:
            raise ConfigError(
                f"{self.path} holds a run with another {', '.join(differing)}: "
                "repeat its settings, remove the folder, or write elsewhere"
            )
        return header["state"], tensors

    def write_curves(self, rows: Sequence[Mapping[str, float | None]]) -> None:
        """Write the reports so far as CSV and as a picture; nothing while there is none."""
        if not rows:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "curves.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        draw(rows, self.path / "curves.png")


def run_path(out: Path) -> Path:
    """The folder of the run that makes the base ``out``."""
    return out.with_suffix(".run")


def read_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a checkpoint; raises ConfigError when it is none."""
    try:
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["header"])
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
        # Clones: views into the file's bytes are not aligned, and alignment may decide a rounding.
        return header, {name: tensor.clone() for name, tensor in load(data).items()}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"{file} is not a checkpoint of this version ({error!r}): remove its folder"
        ) from None


def replace(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside ``file`` and put it in its place in one step, so that none is ever torn."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".part")
    write(draft)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(file)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of what differs, those inside ``settings`` by their own names."""
    out: list[str] = []
    for name in sorted(found.keys() | wanted.keys()):
        a, b = found.get(name), wanted.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            out += _differences(a, b)
        elif a != b:
            out.append(name)
    return out
