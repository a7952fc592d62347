"""Translations of programs: the message catalogues (``.mo``) of Debian packages, unpacked in a folder.

Two languages meet through the English message that both translate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.base_spelling import without_accents
from edgeseq_core.corpus.examples import Example
from edgeseq_core.errors import MissingDataError

FOLDER = "debian"
#: Their catalogues are unpacked into ``FOLDER`` of the data folder; about 27 MB to download.
DEBIAN_PACKAGES = (
    "epiphany-browser-data",
    "evince-common",
    "evolution-common",
    "gedit-common",
    "gnome-control-center-data",
    "gnome-shell-common",
    "gnumeric-common",
    "libglib2.0-data",
    "libgtk-3-common",
    "libgtk-4-common",
    "nautilus-data",
)
LANGUAGES = ("ca", "es", "pl", "sr", "sr@latin")
_NOT_PLAIN = re.compile(r"[%{}<>\\$|\n]")  # placeholders, mark-up, several lines


def _plain(text: str) -> str | None:
    """A message as a person reads it, or None where it holds more than text.

    >>> _plain("_Save as…"), _plain("%d files")
    ('Save as…', None)
    """
    if _NOT_PLAIN.search(text) or not any(map(str.islower, text)):
        return None
    return " ".join(text.replace("_", "").split())


@lru_cache(maxsize=len(LANGUAGES))
def _messages(data: Path, language: str) -> dict[tuple[str, str], str]:
    """(context, English) -> translation, of all catalogues of a language; the first one counts."""
    read_mo = packages.load("babel", "messages.mofile").read_mo
    found: dict[tuple[str, str], str] = {}
    for path in sorted((data / FOLDER).rglob(f"{language}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            for message in read_mo(file):
                # A tuple has a plural: one English text for several translations.
                if isinstance(message.id, str) and isinstance(message.string, str):
                    text = _plain(message.string)
                    if message.id and text:
                        found.setdefault((message.context or "", message.id), text)
    if not found:
        raise MissingDataError(
            f"{data} has no {FOLDER}/**/{language}/LC_MESSAGES/*.mo: run `edgeseq bench fetch` on Debian, "
            f"or unpack there the packages {', '.join(DEBIAN_PACKAGES)}"
        )
    return found


def translated(data: Path, read: str, write: str) -> Iterable[Example]:
    """Messages in one language with the same in another; raises MissingDataError when they are not there."""
    sources, targets = _messages(data, read), _messages(data, write)
    for key, source in sources.items():
        if key in targets:
            yield Example(source, targets[key], source)


def accents_restored(data: Path, language: str) -> Iterable[Example]:
    """Messages without their accents, and with them; raises MissingDataError when they are not there."""
    for text in _messages(data, language).values():
        plain = without_accents(text).replace("ł", "l").replace("Ł", "L")
        yield Example(plain, text, plain)
