"""The registry of tasks to demonstrate with: learnable from about two thousand pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edgeseq_core.corpus.demo_dates import date_order_flip, dates
from edgeseq_core.corpus.demo_words import english_inflection, german_plurals, spanish_verbs
from edgeseq_core.corpus.examples import DemoTask

__all__ = ["DEMO_TASKS", "date_order_flip", "dates", "dates_task"]


def dates_task(day_first: bool) -> DemoTask:
    """Return the task ``dates`` in one regime; a stream that swaps the two drifts."""
    return DemoTask(
        "dates",
        "A written date in one of eight languages, to its ISO form.",
        partial(dates, day_first=day_first),
    )


DEMO_TASKS: Mapping[str, DemoTask] = {
    task.name: task
    for task in (
        dates_task(day_first=False),
        DemoTask(
            "spanish-verbs",
            "A Spanish verb with tense and person, to its form.",
            spanish_verbs,
        ),
        DemoTask(
            "english-inflection",
            "An English noun or verb with a Penn tag, to its form.",
            english_inflection,
        ),
        DemoTask(
            "german-plurals",
            "A German noun with its gender, to its nominative plural.",
            german_plurals,
        ),
    )
}
