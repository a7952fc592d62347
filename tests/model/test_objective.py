"""A student that imitates is drawn to what its teacher says of the same batch, and padding says nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgeseq_core.model.config import preset
from edgeseq_core.model.mixture_batches import Batch
from edgeseq_core.model.objective import Imitation, Labels
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.vocabulary import BOS, EOS, PAD, Vocabulary

VOCABULARY = Vocabulary("abcdefgh")
A = VOCABULARY.encode("a")[0]


def made(seed: int) -> Trainee:
    torch.manual_seed(seed)
    config = preset("128", vocabulary_size=len(VOCABULARY), encoder_layers=1)
    return Trainee.new(config, ["t"], VOCABULARY)


def batch() -> Batch:
    source = torch.tensor([[A, A + 1, EOS], [A, EOS, PAD]])
    target = torch.tensor([[BOS, A, A + 2, EOS], [BOS, A, EOS, PAD]])
    return Batch(source, source, target, torch.zeros(2, dtype=torch.long), [(0, 0), (0, 1)])


def said(trainee: Trainee, one: Batch) -> torch.Tensor:
    return trainee(one.source, one.target[:, :-1], one.tasks)


def test_it_is_the_mean_divergence_over_tokens_that_are_not_padding() -> None:
    teacher, student, one = made(1), made(2), batch()
    loss = Imitation(teacher, smoothing=0.0, share=1.0)(said(student, one), one)
    tokens = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    each = [
        F.kl_div(
            said(student, one)[at].log_softmax(-1),
            said(teacher, one)[at].log_softmax(-1),
            log_target=True,
            reduction="sum",
        )
        for at in tokens
    ]
    assert torch.allclose(loss, torch.stack(each).mean(), atol=1e-5)


def test_its_share_is_of_the_loss() -> None:
    teacher, student, one = made(1), made(2), batch()
    scores = said(student, one)
    labels = Labels(smoothing=0.1)(scores, one)
    whole, half, none = (
        Imitation(teacher, smoothing=0.1, share=share)(scores, one) for share in (1.0, 0.5, 0.0)
    )
    assert torch.equal(none, labels)
    assert torch.allclose(half, (whole + labels) / 2)


def test_a_student_that_says_the_same_has_nothing_to_learn_and_the_teacher_never_has() -> None:
    teacher, one = made(1), batch()
    student = made(1)
    Imitation(teacher, smoothing=0.0, share=1.0)(said(student, one), one).backward()
    gradients = [p.grad.abs().max() for p in student.parameters() if p.grad is not None]
    assert gradients
    assert max(gradients) < 1e-5
    assert all(p.grad is None for p in teacher.parameters())
