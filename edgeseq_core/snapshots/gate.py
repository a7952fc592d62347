"""The gate: may a candidate serve?

It scores exactly the int8 bytes that would serve, for the changed task only, on a recent held-out slice
and an older probe set, and compares pair by pair with the champion.  After a drift the recent slice
decides and the probe is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeseq_core.engine import Score
from edgeseq_core.snapshots.manifest import GateReport, GateScore

DECIDING = ("recent", "probe", "learnt")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Slack is what a candidate may be worse by, beyond one standard error of the paired difference.

    >>> gate = Gate(loss_slack=0.01, exact_slack=0.05)
    >>> good, bad = [Score(1.0, 10, True)] * 20, [Score(9.0, 10, False)] * 20
    >>> gate.decide({"recent": good}, {"recent": bad}, drift=False).verdict
    'promote'
    >>> gate.decide({"recent": bad}, {"recent": good}, drift=False).reasons
    ('recent loss 0.900 against 0.100 nats a token', 'recent exact match 0 against 20 of 20')
    """

    loss_slack: float
    exact_slack: float

    def decide(
        self,
        candidate: Mapping[str, Sequence[Score]],
        champion: Mapping[str, Sequence[Score]],
        *,
        drift: bool,
    ) -> GateReport:
        """Promote unless the candidate is worse; both map a set's name to scores of the same pairs."""
        reasons: list[str] = []
        for name in DECIDING:
            if name in candidate and not (drift and name == "probe"):
                reasons += self._worse(name, candidate[name], champion[name])
        verdict = "hold" if reasons else "promote"
        if not reasons:
            reasons.append(_why(candidate, drift=drift))
        return GateReport(
            verdict=verdict,
            reasons=tuple(reasons),
            candidate={name: summary(scores) for name, scores in candidate.items()},
            champion={name: summary(scores) for name, scores in champion.items()},
        )

    def _worse(self, name: str, new: Sequence[Score], old: Sequence[Score]) -> list[str]:
        pairs, out = len(new), []
        differences = [a.loss / a.tokens - b.loss / b.tokens for a, b in zip(new, old, strict=True)]
        mean = sum(differences) / pairs
        spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / max(1, pairs - 1) / pairs)
        if not math.isfinite(mean) or mean > self.loss_slack + spread:
            a, b = summary(new), summary(old)
            out.append(f"{name} loss {a.loss:.3f} against {b.loss:.3f} nats a token")
        right, before = sum(s.exact for s in new), sum(s.exact for s in old)
        if before - right > max(1, self.exact_slack * pairs):
            out.append(f"{name} exact match {right} against {before} of {pairs}")
        return out


def summary(scores: Sequence[Score]) -> GateScore:
    """Mean loss a token (of pairs), and exact matches."""
    loss = sum(s.loss / s.tokens for s in scores) / len(scores) if scores else 0.0
    return GateScore(pairs=len(scores), loss=loss, exact=sum(s.exact for s in scores))


def _why(candidate: Mapping[str, Sequence[Score]], *, drift: bool) -> str:
    if "learnt" in candidate:
        return f"few held-out pairs ({len(candidate.get('recent', ()))}); not worse on what was just learnt"
    return "not worse on the recent slice" + (" after a drift" if drift else " and the probe set")
