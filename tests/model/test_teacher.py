"""A teacher averages its members, answers greedily, and a student follows it without labels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.batch import pad
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.objective import Distillation
from edgeseq_core.model.output import DISTANCE_COST
from edgeseq_core.model.pretrain import PretrainSettings, Training
from edgeseq_core.model.teacher import MAX_ANSWER, Teacher
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.vocabulary import BOS, EOS, Vocabulary

VOCABULARY = Vocabulary("abcABC")
WORDS = ["".join(letters) for n in (2, 3) for letters in itertools.product("abc", repeat=n)]
PAIRS = [(word, word.upper()) for word in WORDS]
SETTINGS = PretrainSettings(
    steps=200, batch=16, warmup_steps=10, learning_rate=5e-3, byte_dropout=0.0
)


def trainee(seed: int, vocabulary: Vocabulary = VOCABULARY, **shape: Any) -> Trainee:
    config = ModelConfig(
        vocabulary_size=len(vocabulary),
        d_model=32,
        heads=2,
        encoder_layers=2,
        encoder_ffn=64,
        decoder_ffn=32,
        **shape,
    )
    torch.manual_seed(seed)
    return Trainee.new(config, ["upper"], vocabulary)


@pytest.fixture(scope="module")
def taught() -> Trainee:
    """A network that has learnt the task."""
    run = Training(trainee(1), {"upper": PAIRS}, SETTINGS)
    for _ in range(SETTINGS.steps):
        run.advance(window=10)
    return run.trainee


def source(words: list[str]) -> torch.Tensor:
    return pad([[*VOCABULARY.encode(word), EOS] for word in words])


def test_an_ensemble_says_the_mean_probability() -> None:
    one, two = trainee(1), trainee(2, output="copy")
    asked, target = source(["ab", "c"]), pad([[BOS, 262], [BOS, 263]])
    both = Teacher([one, two]).log_probabilities(asked, target, "upper")
    with torch.no_grad():
        task = torch.zeros(2, dtype=torch.long)
        mean = sum(m(asked, target, task).softmax(-1) for m in (one, two)) / 2
    assert torch.allclose(both.exp(), torch.as_tensor(mean), atol=1e-6)


def test_a_teacher_that_copies_answers_with_what_it_copies() -> None:
    one = trainee(1, output="copy")
    with torch.no_grad():
        one.model.matrix("decoder.copy", "q").zero_()  # places are told apart by distance alone
        one.model.bias("decoder.copy", "gate").fill_(50.0)
    (said,) = Teacher([one]).answers(source(["bbbb"]), "upper")
    assert said is None  # of the source's tokens the most frequent, for ever
    lessons = Teacher([one]).lessons("upper", [("bbbb", "b")], level="word", k=2)
    assert lessons.of(0).ids[0].tolist() == [*VOCABULARY.encode("b"), EOS]
    near = torch.exp(-DISTANCE_COST * torch.arange(5.0))  # four letters, and EOS behind them
    wanted = torch.stack([near[:4].sum(), near[4]]).log() - near.sum().log()
    assert torch.allclose(lessons.of(0).log_probabilities[0], wanted, atol=1e-3)


def test_answers_are_greedy(taught: Trainee) -> None:
    words = ["abc", "ca", "bbb"]
    said = Teacher([taught]).answers(source(words), "upper")
    assert said == [VOCABULARY.encode(word.upper()) for word in words]


def test_an_answer_that_never_ends_is_no_lesson(taught: Trainee) -> None:
    endless = Trainee.of_base(taught.model, ["upper"], VOCABULARY)
    with torch.no_grad():
        endless.model.vocabulary_bias[EOS] = -100.0
    teacher = Teacher([endless])
    assert teacher.answers(source(["ab"]), "upper") == [None]
    lessons = teacher.lessons("upper", PAIRS[:5], level="sequence", k=2)
    assert len(lessons.places) == 0
    assert len(teacher.lessons("upper", PAIRS[:5], level="word", k=2).places) == 5
    assert MAX_ANSWER == 64


def test_lessons_hold_what_the_teacher_said(taught: Trainee) -> None:
    teacher = Teacher([taught])
    lessons = teacher.lessons("upper", PAIRS, level="word", k=3, temperature=2.0)
    assert sorted(lessons.places) == list(range(len(PAIRS)))
    row = 20
    word, upper = PAIRS[lessons.places[row]]
    target = torch.tensor([[BOS, *VOCABULARY.encode(upper)]])
    whole = teacher.log_probabilities(source([word]), target, "upper", temperature=2.0)
    best = whole[0].topk(3)
    assert lessons.of(row).ids.tolist() == best.indices.tolist()
    assert torch.allclose(lessons.of(row).log_probabilities, best.values, atol=1e-2)
    assert lessons.target(row) == VOCABULARY.encode(upper)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["answers", "probabilities"])
def test_a_student_follows_its_teacher_on_inputs_without_labels(
    taught: Trainee, share: float
) -> None:
    kept_apart, asked = WORDS[::6], [word for at, word in enumerate(WORDS) if at % 6]
    teacher = Teacher([taught])
    unlabelled = [(word, "") for word in asked]
    lessons = teacher.lessons("upper", unlabelled, level="sequence", k=3)
    told = [
        (asked[place], VOCABULARY.decode(lessons.target(row)))
        for row, place in enumerate(lessons.places)
    ]
    objective = Distillation([lessons], smoothing=0.0, share=share)
    student = trainee(7)
    run = Training(student, {"upper": told}, SETTINGS, objective)

    def agree() -> float:
        answers = zip(
            teacher.answers(source(kept_apart), "upper"),
            Teacher([student]).answers(source(kept_apart), "upper"),
            strict=True,
        )
        return sum(a == b for a, b in answers) / len(kept_apart)

    assert agree() == 0
    for _ in range(SETTINGS.steps):
        run.advance(window=10)
    assert agree() > 0.5


def test_teachers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="different vocabularies"):
        Teacher([trainee(1), trainee(2, Vocabulary("xyz"))])
    with pytest.raises(ConfigError, match="has not learnt lower"):
        Teacher([trainee(1)]).lessons("lower", PAIRS[:2], level="word", k=2)
