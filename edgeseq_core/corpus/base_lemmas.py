"""Pretraining tasks: word form to dictionary form, in languages no demonstration uses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from edgeseq_core.corpus.examples import BaseTask, Example
from edgeseq_core.corpus.words import form_lemma_pairs

LANGUAGES = (
    "sv", "pt", "it", "fr", "tr", "ro", "lt", "ru", "cs", "uk", "el", "he", "hi", "hy",
    "ka", "ml", "ar", "ga", "cy", "is", "nl", "da", "bg", "mk", "lv", "sl", "sk", "hu",
)  # fmt: skip


def _lemmas(language: str) -> Iterator[Example]:
    for form, lemma in form_lemma_pairs(language):
        yield Example(form, lemma, lemma)


TASKS = tuple(BaseTask(f"lemma-{code}", partial(_lemmas, code)) for code in LANGUAGES)
