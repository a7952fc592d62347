import math
import random

import pytest

from edgeseq_core.engine import Score
from edgeseq_core.snapshots.gate import SINCE_DRIFT, Gate

GATE = Gate(
    loss_clip=2.0,
    loss_slack=0.1,
    answer_slack=0.25,
    exact_slack=0.04,
    drift_gain=0.1,
    min_pairs=8,
)


def scores(seed: int, shift: float = 0.0, right: float = 0.8, pairs: int = 32) -> list[Score]:
    rng = random.Random(seed)
    return [
        Score(8 * max(0.0, rng.gauss(0.3, 0.2) + shift), 8, rng.random() < right)
        for _ in range(pairs)
    ]


def test_equal_and_better_candidates_are_promoted() -> None:
    same = scores(1)
    for candidate in (same, scores(1, shift=-0.1)):
        report = GATE.decide({"recent": candidate}, {"recent": same}, drift=False)
        assert report.verdict == "promote"
        assert report.reasons


def test_a_worse_candidate_is_held_on_either_set() -> None:
    good, bad = scores(1), scores(1, shift=0.2)
    for worse in ("recent", "probe"):
        candidate = {"recent": good, "probe": good} | {worse: bad}
        report = GATE.decide(candidate, {"recent": good, "probe": good}, drift=False)
        assert report.verdict == "hold"
        assert worse in report.reasons[0]


def test_after_a_drift_the_probe_is_reported_and_does_not_decide() -> None:
    good, bad = scores(1), scores(1, shift=0.5)
    report = GATE.decide(
        {"recent": good, "probe": bad}, {"recent": good, "probe": good}, drift=True
    )
    assert report.verdict == "promote"
    assert report.candidate["probe"].loss > report.reference["probe"].loss + 0.2
    held = GATE.decide({"recent": bad, "probe": good}, {"recent": good, "probe": good}, drift=True)
    assert held.verdict == "hold"


GIVEN_UP = Score(
    20.0, 8, False
)  # 2.5 nats a token, whatever the pair: knows nothing, is never sure
SURE_AND_WRONG = Score(64.0, 8, False)
SURE_AND_RIGHT = Score(0.4, 8, True)


@pytest.mark.parametrize("drift", [False, True])
@pytest.mark.parametrize("shuffled", [8, 16, 28])
def test_a_burst_of_wrong_pairs_in_the_recent_slice_promotes_no_one_who_gave_up(
    shuffled: int, drift: bool
) -> None:
    right = 32 - shuffled
    reference = [SURE_AND_RIGHT] * right + [SURE_AND_WRONG] * shuffled
    sets = {"recent": reference, SINCE_DRIFT: [SURE_AND_WRONG] * shuffled}
    given_up = {"recent": [GIVEN_UP] * 32, SINCE_DRIFT: [GIVEN_UP] * shuffled}
    assert GATE.decide(given_up, sets, drift=drift).verdict == "hold"


def test_after_a_drift_what_clearly_answers_the_new_pairs_is_promoted_before_they_fill_the_slice() -> (
    None
):
    old_rule, new_rule = 22, 10
    reference = [SURE_AND_RIGHT] * old_rule + [SURE_AND_WRONG] * new_rule
    adapted = [SURE_AND_WRONG] * old_rule + [SURE_AND_RIGHT] * new_rule
    before = {"recent": reference, SINCE_DRIFT: reference[old_rule:]}
    after = {"recent": adapted, SINCE_DRIFT: adapted[old_rule:]}
    report = GATE.decide(after, before, drift=True)
    assert report.verdict == "promote"
    assert report.leads
    assert report.reasons == ("clearly better on 10 pairs since the drift",)
    assert GATE.decide(after, before, drift=False).verdict == "hold"
    few = {"recent": adapted, SINCE_DRIFT: adapted[old_rule:][:7]}
    few_before = {"recent": reference, SINCE_DRIFT: reference[old_rule:][:7]}
    assert GATE.decide(few, few_before, drift=True).verdict == "hold"


def test_only_an_equal_or_better_candidate_leads() -> None:
    same = scores(1)
    slightly_worse = [Score(s.loss + 0.02, s.tokens, s.exact) for s in same]
    for candidate, leads in ((same, True), (slightly_worse, False), (scores(1, shift=-0.1), True)):
        report = GATE.decide({"recent": candidate}, {"recent": same}, drift=False)
        assert (report.verdict, report.leads) == ("promote", leads)
    held = GATE.decide({"recent": scores(1, shift=0.3)}, {"recent": same}, drift=False)
    assert not held.leads


def test_lost_exact_matches_hold_even_when_the_loss_is_equal() -> None:
    before = [Score(4.0, 8, True)] * 32
    after = [Score(4.0, 8, False)] * 8 + [Score(4.0, 8, True)] * 24
    assert GATE.decide({"recent": after}, {"recent": before}, drift=False).verdict == "hold"


def test_a_loss_that_is_no_number_is_held() -> None:
    broken = [Score(math.nan, 8, True)] * 8
    assert (
        GATE.decide({"recent": broken}, {"recent": scores(1, pairs=8)}, drift=False).verdict
        == "hold"
    )


def test_noise_within_one_standard_error_is_no_reason() -> None:
    before = [Score(4.0, 8, True)] * 32
    noisy = [Score(4.8 + (4.0 if at % 2 else -4.0), 8, True) for at in range(32)]
    steady = [Score(4.8, 8, True)] * 32
    assert GATE.decide({"recent": noisy}, {"recent": before}, drift=False).verdict == "promote"
    assert GATE.decide({"recent": steady}, {"recent": before}, drift=False).verdict == "hold"


def test_first_candidates_say_that_there_is_little_evidence() -> None:
    report = GATE.decide(
        {"recent": scores(1, pairs=2), "learnt": scores(2)},
        {"recent": scores(1, pairs=2), "learnt": scores(2, shift=0.3)},
        drift=False,
    )
    assert report.verdict == "promote"
    assert "few held-out pairs (2)" in report.reasons[0]
