"""The gate: may a candidate serve?

It scores exactly the int8 bytes that would serve, for the changed task only, on a recent held-out slice
and an older probe set, and compares pair by pair with the **reference**: the best recent champion, so
that many candidates, each a little worse than the one before, cannot walk down.  After a drift the recent
slice decides and the probe is reported; a candidate that clearly gives more right answers to the pairs
since the drift is not held for what it lost on those from before it.

What a pair can say is bounded.  A burst of wrong pairs reaches the recent slice too, and there a model
that has given up knowing anything loses far fewer nats than one that is sure; so a pair's loss is clipped,
and the probability of the whole right answer, which both have close to none of, counts beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeseq_core.engine import Score
from edgeseq_core.snapshots.manifest import GateReport, GateScore

DECIDING = ("recent", "probe", "learnt")
EXACT_ERRORS = 2  # standard errors of right answers: the reference is the luckiest of many
LEAST_ANSWER_SLACK = 0.02  # probability: while a task begins, all are near zero
SINCE_DRIFT = "since_drift"  # the part of the recent slice that came after the last drift
Scores = Mapping[str, Sequence[Score]]  # by held-out set


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Slack is what a candidate may be worse by, beyond the noise of the paired difference.

    >>> slack = {"loss_slack": 0.01, "answer_slack": 0.25, "exact_slack": 0.05}
    >>> gate = Gate(loss_clip=2.0, drift_gain=0.1, min_pairs=8, **slack)
    >>> good, bad = [Score(1.0, 10, True)] * 20, [Score(9.0, 10, False)] * 20
    >>> gate.decide({"recent": good}, {"recent": bad}, drift=False).verdict
    'promote'
    >>> gate.decide({"recent": bad}, {"recent": good}, drift=False).reasons[0]
    'recent loss 0.900 against 0.100 nats a token'
    >>> gate.decide({"recent": bad}, {"recent": good}, drift=False).reasons[1:]
    ('recent answers 0.000 likely against 0.368', 'exact match 0 against 20 of 20')
    """

    loss_clip: float  # nats a token
    loss_slack: float  # nats a token
    answer_slack: float  # share of the reference's probability of the right answers
    exact_slack: float  # share of pairs
    drift_gain: (
        float  # probability of the right answer that is clearly more, beyond a standard error
    )
    min_pairs: int  # since a drift, before they alone may decide

    def decide(self, candidate: Scores, reference: Scores, *, drift: bool) -> GateReport:
        """Promote unless the candidate is worse; both map a set's name to scores of the same pairs."""
        if drift and self._adapted(candidate.get(SINCE_DRIFT, ()), reference.get(SINCE_DRIFT, ())):
            deciding = [SINCE_DRIFT]
        else:
            deciding = [n for n in DECIDING if n in candidate and not (drift and n == "probe")]
        new = [s for name in deciding for s in candidate[name]]
        old = [s for name in deciding for s in reference[name]]
        reasons = [r for n in deciding for r in self._less_sure(n, candidate[n], reference[n])]
        reasons += self._less_right(new, old)
        verdict = "hold" if reasons else "promote"
        return GateReport(
            verdict=verdict,
            reasons=tuple(reasons) or (_why(deciding, candidate),),
            candidate={name: summary(scores) for name, scores in candidate.items()},
            reference={name: summary(scores) for name, scores in reference.items()},
            leads=not reasons and _rightness(new) >= _rightness(old),
        )

    def loss(self, scores: Sequence[Score]) -> float:
        """Mean of the clipped losses a token."""
        return sum(map(self._loss, scores)) / len(scores)

    def _adapted(self, new: Sequence[Score], old: Sequence[Score]) -> bool:
        """Whether the pairs since a drift are clearly answered better; shuffled ones never are."""
        if len(new) < self.min_pairs:
            return False
        return _risen([answer(s) for s in new], [answer(s) for s in old], self.drift_gain)

    def _less_sure(self, name: str, new: Sequence[Score], old: Sequence[Score]) -> list[str]:
        out = []
        if _risen([self._loss(s) for s in new], [self._loss(s) for s in old], self.loss_slack):
            a, b = summary(new).loss, summary(old).loss
            out.append(f"{name} loss {a:.3f} against {b:.3f} nats a token")
        had, has = [answer(s) for s in old], [answer(s) for s in new]
        likely, before = sum(has) / len(has), sum(had) / len(had)
        if _risen(had, has, max(LEAST_ANSWER_SLACK, self.answer_slack * before)):
            out.append(f"{name} answers {likely:.3f} likely against {before:.3f}")
        return out

    def _less_right(self, new: Sequence[Score], old: Sequence[Score]) -> list[str]:
        lost = sum(b.exact and not a.exact for a, b in zip(new, old, strict=True))
        gained = sum(a.exact and not b.exact for a, b in zip(new, old, strict=True))
        error = math.sqrt(lost + gained)  # McNemar 1947: of the difference, were both equally right
        if lost - gained <= max(1, self.exact_slack * len(new)) + EXACT_ERRORS * error:
            return []
        right, before = sum(s.exact for s in new), sum(s.exact for s in old)
        return [f"exact match {right} against {before} of {len(new)}"]

    def _loss(self, score: Score) -> float:
        a_token = score.loss / score.tokens
        return min(a_token, self.loss_clip) if math.isfinite(a_token) else math.inf


def answer(score: Score) -> float:
    """Probability of the whole right answer: between 0 and 1, so that no pair counts more than one."""
    return math.exp(-score.loss) if math.isfinite(score.loss) else 0.0


def summary(scores: Sequence[Score]) -> GateScore:
    """Mean loss a token (of pairs), and exact matches."""
    loss = sum(s.loss / s.tokens for s in scores) / len(scores) if scores else 0.0
    return GateScore(pairs=len(scores), loss=loss, exact=sum(s.exact for s in scores))


def _risen(to: Sequence[float], since: Sequence[float], slack: float) -> bool:
    """Whether ``to`` is above ``since`` by more than slack and one standard error, pair by pair."""
    pairs = len(to)
    differences = [a - b for a, b in zip(to, since, strict=True)]
    mean = sum(differences) / pairs
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / max(1, pairs - 1) / pairs)
    return not mean <= slack + spread  # also when it is no number


def _rightness(scores: Sequence[Score]) -> float:
    """Right answers, and how likely they were: what a candidate must have as much of to lead."""
    return sum(s.exact + answer(s) for s in scores)


def _why(deciding: Sequence[str], candidate: Scores) -> str:
    if deciding == [SINCE_DRIFT]:
        return f"clearly better on {len(candidate[SINCE_DRIFT])} pairs since the drift"
    if "learnt" in deciding:
        return f"few held-out pairs ({len(candidate.get('recent', ()))}); not worse on what was just learnt"
    rest = "and the probe set" if "probe" in deciding else "after a drift"
    return f"not worse on the recent slice {rest}"
