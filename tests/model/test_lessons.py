"""What is kept of a teacher says as much as the whole where it can, and pulls a student the right way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from edgeseq_core.model.lessons import Lessons, TopK, divergence, pad_top_k, top_k


def scores(seed: int, symbols: int = 20) -> torch.Tensor:
    return torch.randn(3, 5, symbols, generator=torch.Generator().manual_seed(seed)) * 2


def full_divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    both = (student.log_softmax(-1), teacher.log_softmax(-1))
    return F.kl_div(*both, reduction="none", log_target=True).sum(-1)


def test_with_all_symbols_it_is_the_whole_divergence() -> None:
    teacher, student = scores(1), scores(2)
    said = top_k(teacher.log_softmax(-1), 20)
    assert torch.allclose(divergence(said, student), full_divergence(teacher, student), atol=1e-5)


def test_fewer_symbols_say_less_but_never_nothing() -> None:
    teacher, student = scores(1), scores(2)
    whole = full_divergence(teacher, student)
    said = [divergence(top_k(teacher.log_softmax(-1), k), student) for k in (1, 4, 8)]
    for less, more in zip(said, [*said[1:], whole], strict=True):
        assert (less <= more + 1e-5).all()  # buckets lose information (data processing inequality)
    assert (said[0] > 0).all()


def test_an_equal_student_has_nothing_to_learn() -> None:
    teacher = scores(1)
    assert divergence(top_k(teacher.log_softmax(-1), 4), teacher).abs().max() < 1e-5


def test_the_gradient_moves_mass_to_what_the_teacher_says() -> None:
    teacher = torch.tensor([0.6, 0.3, 0.05, 0.03, 0.02]).log()
    student = torch.zeros(5, requires_grad=True)  # a fifth each
    divergence(top_k(teacher, 2), student).backward()
    assert student.grad is not None
    # d KL / d score = p_student - p_teacher, of the rest in proportion to the student's own shares.
    assert torch.allclose(
        student.grad, torch.tensor([-0.4, -0.1, 0.5 / 3, 0.5 / 3, 0.5 / 3]), atol=1e-5
    )


def test_a_higher_temperature_is_the_divergence_of_the_tempered_ones() -> None:
    teacher, student = scores(1), scores(2)
    said = top_k((teacher / 3).log_softmax(-1), 20)
    tempered = full_divergence(teacher / 3, student / 3)
    assert torch.allclose(divergence(said, student, temperature=3.0), tempered, atol=1e-5)


def test_rows_of_several_lengths_stand_together() -> None:
    rows = [TopK(torch.full((n, 2), n), torch.full((n, 2), -1.0 * n)) for n in (3, 1)]
    both = pad_top_k(rows)
    assert both.ids.shape == (2, 3, 2)
    assert both.ids[1, 0].tolist() == [1, 1]
    assert both.log_probabilities[0, 2].tolist() == [-3.0, -3.0]


def lessons() -> Lessons:
    return Lessons(
        places=np.array([4, 1], np.int32),
        starts=np.array([0, 3, 4]),
        targets=np.array([300, 301, 2, 2], np.uint16),
        ids=np.arange(8, dtype=np.uint16).reshape(4, 2),
        log_probabilities=-np.arange(8, dtype=np.float16).reshape(4, 2),
        temperature=2.0,
    )


def test_lessons_come_back_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "task.safetensors"
    lessons().write(file, {"teachers": ["x"]})
    again = Lessons.read(file, {"teachers": ["x"]})
    assert again is not None
    assert again.temperature == 2.0
    assert again.target(0) == [300, 301]
    assert again.target(1) == []
    assert again.of(1).ids.tolist() == [[6, 7]]
    assert again.of(0).log_probabilities[2].tolist() == [-4.0, -5.0]


def test_lessons_of_something_else_are_made_again(tmp_path: Path) -> None:
    file = tmp_path / "task.safetensors"
    assert Lessons.read(file, {}) is None
    lessons().write(file, {"teachers": ["x"]})
    assert Lessons.read(file, {"teachers": ["y"]}) is None
    file.write_bytes(b"cut off")
    assert Lessons.read(file, {"teachers": ["x"]}) is None
