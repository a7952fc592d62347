"""The model card of a base: what it was made from, how, and how well it does; from its own header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.base_file import BaseHeader
from edgeseq_core.model.pretrain import PretrainSettings

ALWAYS = ("preset", "steps", "batch", "seed")
WHERE_CHANGED = ("output", "learning_rate", "warmup_steps", "device", "precision")


def model_card(header: BaseHeader, file: Path, seconds: float) -> str:
    """Markdown text for a base that took so many seconds to train.

    Raises SnapshotError for a base whose header does not tell how it was made (an unfinished one).
    """
    notes, config = header.notes, header.config
    if "dev_exact" not in notes:
        raise SnapshotError(f"{file} was written in the middle of training: let the run end")
    settings, tasks, exact = notes["settings"], notes["tasks"], notes["dev_exact"]
    rows = [
        f"| {name} | {pairs:,} | {100 * exact[name]:.1f} |"
        if name in exact
        else f"| {name} | {pairs:,} | |"
        for name, pairs in sorted(tasks.items())
    ]
    mean = sum(exact.values()) / max(1, len(exact))
    return "\n".join(
        (
            f"# {file.name}",
            "",
            f"An EdgeFormer of {config.parameters:,} numbers (d_model {config.d_model}, "
            f"{config.encoder_layers} + {config.decoder_layers} layers, {config.vocabulary_size} symbols, "
            f"output: {config.output}), stored as int8 per row; the base that tasks are taught on. Version "
            f"{notes['version']}, sha256 `{header.digest}`.",
            "",
            f"Made by `{command(file, notes)}` in {seconds / 60:.0f} minutes on {_where(settings)} "
            "from data of Python packages (extra `pretrain` pins them), each under its own "
            "licence; no rows of data are shipped. It saw nothing that is held out (`int(md5(folded "
            "source), 16) % 10 == 0`), no dev or test source of the SIGMORPHON 2021 G2P and historical "
            "spelling benchmarks, and no pair or output format of the demo tasks.",
            "",
            f"Exact match on dev pairs of its own tasks, fp32, in % (mean {100 * mean:.1f}):",
            "",
            "| task | training pairs | exact |",
            "|---|---|---|",
            *rows,
            "",
        )
    )


def command(file: Path, notes: Mapping[str, Any]) -> str:
    """What makes the base again."""
    settings, origin = notes["settings"], notes.get("origin", {})
    normal = {field.name: field.default for field in fields(PretrainSettings)}
    changed = [n for n in WHERE_CHANGED if n in settings and settings[n] != normal[n]]
    flags = {name: settings[name] for name in (*ALWAYS, *changed)}
    if "pruned" in origin:
        del flags["preset"]
        of_base = {"base": origin["base"]} if origin["base"] else {}
        cut = {n: origin[n] for n in ("ffn_share", "head_share", "layers") if n in origin}
        of_origin = [*_flags(of_base), *_flags(cut)]
        return " ".join(("edgeseq prune", file.name, *of_origin, *_flags(flags)))
    taught = [f"--teacher {name}" for name in origin.get("bases", ())]
    if taught:
        taught += _flags({"distill": origin["level"], "lessons": origin["pairs"]})
    return " ".join(("edgeseq pretrain", file.name, *_flags(flags), *taught))


def _flags(values: Mapping[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')} {value}" for name, value in values.items()]


def _where(settings: Mapping[str, Any]) -> str:
    if settings.get("device", "cpu") == "cuda":
        return f"a GPU in {settings['precision']}"
    return f"{settings['threads']} CPU thread(s)"
