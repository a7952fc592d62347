"""A pull to the champion's numbers, so that no step walks far from what serves."""

from __future__ import annotations

import torch

from edgeseq_core.learn.strategies.plain import Plain
from edgeseq_core.learn.strategies.protocol import Student


class Anchor(Plain):
    """Adds ``strength / 2 * |theta - theta_champion|^2``, over the numbers that both have.

    Source: L2-SP (Li, Grandvalet, Davoine 2018, arXiv 1802.01483); EWC without its Fisher
    information.  While a task adapts to a drift or learns anew, what serves is what it must leave.
    """

    follows = True

    def pull(self, student: Student) -> None:
        if student.champion is None or student.adapts or student.progress.relearning:
            return
        if (anchor := student.champion.beside(student.calibration)) is None:
            return
        strength = student.config.anchor_strength
        for name, leaf in student.calibration.tensors.items():
            there = anchor.tensors.get(name)
            if there is None or there.shape != leaf.shape:
                continue
            away = strength * (leaf.detach() - there)
            leaf.grad = away if leaf.grad is None else torch.add(leaf.grad, away)
