"""The registry of pretraining tasks."""

from __future__ import annotations

from collections.abc import Mapping

from edgeseq_core.corpus import (
    base_edits,
    base_g2p,
    base_lemmas,
    base_names,
    base_numbers,
    base_scripts,
    base_spelling,
)
from edgeseq_core.corpus.examples import BaseTask

_FAMILIES = (
    base_g2p.TASKS,
    base_spelling.TASKS,
    base_lemmas.TASKS,
    base_numbers.TASKS,
    base_names.TASKS,
    base_scripts.TASKS,
    base_edits.TASKS,
)

BASE_TASKS: Mapping[str, BaseTask] = {task.name: task for family in _FAMILIES for task in family}
