"""What shapes learning: every number that a snapshot's content depends on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LearningConfig(BaseModel):
    """Settings of the learner and its gate; recorded in every manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 1
    rank: int = 8
    encoder_layers: int = 1  # calibrated, counted from the top

    fresh_per_step: int = 32  # pairs
    replay_per_step: int = 32
    rehearsals_per_step: int = 2  # replay-only steps while nothing waits, for each step with fresh pairs

    learning_rate: float = 8e-3
    warmup_steps: int = 20
    decay_after_steps: int = 100  # then ~ 1/sqrt(steps), down to the floor
    floor_ratio: float = 0.2
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    loss_clip: float = 6.0  # nats a token; a pair above it pulls no harder than one at it
    norm_cap: float = 1.0  # of the gradient
    averaging: float = 0.8  # weight of the past in the averaged calibration that is offered; 0: none

    held_out_share: float = 0.045  # of bulk pairs; corrections never
    recent_pairs: int = 32
    probe_pairs: int = 32
    gate_interval_s: float = 1.0  # at most one candidate in this time while pairs wait
    gate_loss_slack: float = 0.01  # nats a token a candidate may be worse
    gate_exact_slack: float = 0.04  # share of held-out pairs
    gate_min_pairs: int = 8  # fewer held-out pairs: what was just learnt is scored as well
    drift_delta: float = 0.002  # ADWIN's confidence
