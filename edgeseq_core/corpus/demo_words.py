"""Demonstration tasks about words: Spanish verbs, English inflection, German plurals."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from functools import lru_cache
from xml.etree import ElementTree

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.examples import Example, shuffled

SPANISH_TENSES = {
    "presente": "pres",
    "pretérito-perfecto-simple": "pret",
    "pretérito-imperfecto": "impf",
    "futuro": "fut",
}
PERSONS = ("1s", "2s", "3s", "1p", "2p", "3p")
ENGLISH_TAGS = {"noun": ("NNS",), "verb": ("VBD", "VBN", "VBG", "VBZ")}
GERMAN_PERIPHERY = (
    "Toponym",
    "Vorname",
    "Nachname",
    "Eigenname",
    "Abkürzung",
    "adjektivische Deklination",
    "Wortverbindung",
)


@lru_cache(maxsize=1)
def _spanish() -> tuple[Example, ...]:
    folder = packages.data_file("verbecc", "data", "xml")
    endings: dict[str, list[tuple[str, str]]] = {}
    root = ElementTree.parse(folder / "conjugations" / "conjugations-es.xml").getroot()
    for template in root:
        cells = []
        for tense in template.find("Indicativo") or ():
            tag = SPANISH_TENSES.get(tense.tag)
            # Impersonal verbs list fewer cells, without saying which persons they are.
            if tag and len(tense) == len(PERSONS):
                for person, cell in zip(PERSONS, tense, strict=True):
                    cells.append((f"{tag}-{person}", cell.findtext("i") or ""))
        endings[template.get("name", "")] = cells
    examples = []
    for verb in ElementTree.parse(folder / "verbs" / "verbs-es.xml").getroot():
        lemma, template_name = verb.findtext("i") or "", verb.findtext("t") or ""
        old = template_name.partition(":")[2]
        # A template whose ending the verb does not have is an error of the list; reflexive
        # verbs (-se) are left out, for the list gives their forms without the pronoun.
        if lemma.isalpha() and old and lemma.endswith(old) and not lemma.endswith("se"):
            stem = lemma[: -len(old)]
            for tag, ending in endings.get(template_name, ()):
                if ending:
                    examples.append(Example(f"{lemma} {tag}", stem + ending, lemma))
    return tuple(examples)


def spanish_verbs(seed: int) -> list[Example]:
    """Return "lemma tense-person" with its form, e.g. ``hablar pret-3s`` and ``habló``."""
    return shuffled(_spanish(), seed)


@lru_cache(maxsize=1)
def _english() -> tuple[Example, ...]:
    examples = []
    path = packages.data_file("lemminflect", "resources", "infl_lu.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for lemma, kind, *cells in csv.reader(lines):
            # A capital marks a proper noun.
            if not (lemma.isascii() and lemma.isalpha() and lemma.islower()):
                continue
            tags = ENGLISH_TAGS.get(kind, ())
            forms = [cell.partition("/")[0] for cell in cells]
            if tags and len(forms) == len(tags):
                if kind == "verb" and not forms[1]:
                    forms[1] = forms[0]  # the list leaves out a participle equal to the past
                for tag, form in zip(tags, forms, strict=True):
                    # A plural equal to its noun mostly marks a mass noun: no rule to learn.
                    if form and form != lemma:
                        examples.append(Example(f"{lemma} {tag}", form, lemma))
    return tuple(examples)


def english_inflection(seed: int) -> list[Example]:
    """Return "lemma TAG" with its form, e.g. ``carry VBZ`` and ``carries``."""
    return shuffled(_english(), seed)


def _plural_rows() -> Iterator[Example]:
    path = packages.data_file("german_nouns", "nouns.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            lemma, plural, gender = row["lemma"], row["nominativ plural"], row["genus"]
            kinds = row["pos"].split(",")
            if "Substantiv" not in kinds or any(kind in GERMAN_PERIPHERY for kind in kinds):
                continue
            if not (lemma.isalpha() and plural.isalpha() and gender in {"m", "f", "n"}):
                continue
            # German says nominative, genitive and accusative plurals alike: where these
            # differ, the nominative cell holds a dative or a dialect form.
            if plural == row["genitiv plural"] == row["akkusativ plural"]:
                yield Example(f"{lemma} {gender}", plural, lemma)


@lru_cache(maxsize=1)
def _german() -> tuple[Example, ...]:
    return tuple(_plural_rows())


def german_plurals(seed: int) -> list[Example]:
    """Return "noun gender" with its plural, e.g. ``Haus n`` and ``Häuser``."""
    return shuffled(_german(), seed)
