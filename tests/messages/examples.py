"""One or more examples of every message, as the golden files hold them."""

from edgeseq_core.messages import (
    Control,
    ControlResult,
    Feedback,
    Hypothesis,
    Message,
    Pair,
    PairName,
    PairStatus,
    Reply,
    ReplyError,
    Request,
    Series,
    StatusQuery,
    Timings,
)

SENT_MS = 1_760_000_000_000

EXAMPLES: dict[str, Message] = {
    "pair": Pair(
        pair_id="p-1",
        producer="erp",
        task="dates",
        source="3. Mai 2024",
        target="2024-05-03",
        sent_at_ms=SENT_MS,
    ),
    "pair_series": Pair(
        pair_id="p-2",
        producer="meter:7",
        task="gestures",
        source=Series(times=[0, 0.5, 2], values=[[1, -1.5], [2, 0], [3, 1e-3]]),
        target="wave",
        sent_at_ms=SENT_MS,
    ),
    "feedback": Feedback(
        pair_id="f-1",
        producer="desk",
        request_id="r-1",
        task="dates",
        source="4. Mai 2024",
        target="2024-05-04",
        sent_at_ms=SENT_MS,
    ),
    "request": Request(
        request_id="r-1",
        task="dates",
        source="5. Mai 2024",
        n_best=3,
        deadline_ms=SENT_MS + 500,
        timeout_ms=500,
        priority="bulk",
        sent_at_ms=SENT_MS,
    ),
    "request_constrained": Request(
        request_id="r-3", task="dates", source="6 May 2024", constrained=True, sent_at_ms=SENT_MS
    ),
    "request_minimal": Request(request_id="r-2", source="漢字 \U0001f600", sent_at_ms=SENT_MS),
    "status_query": StatusQuery(
        request_id="q-1", task="dates", producer="erp", pair_id="p-1", sent_at_ms=SENT_MS
    ),
    "control_promote": Control(
        control_id="c-1",
        action="promote",
        task="dates",
        snapshot_id="dates-12-0123456789ab",
        operator="ann",
        reason="looks good",
        sent_at_ms=SENT_MS,
    ),
    "control_rollback": Control(
        control_id="c-2", action="rollback", task="dates", operator="ann", sent_at_ms=SENT_MS
    ),
    "control_cancel": Control(
        control_id="c-3", action="cancel", request_id="r-1", operator="ann", sent_at_ms=SENT_MS
    ),
    "control_result": ControlResult(
        control_id="c-1", action="promote", ok=True, task="dates", champion="dates-12-0123456789ab"
    ),
    "reply": Reply(
        request_id="r-1",
        task="dates",
        hypotheses=[Hypothesis(target="2024-05-05", score=-0.25)],
        confidence=0.75,
        snapshot_id="dates-12-0123456789ab",
        timings=Timings(queue_ms=1.5, compute_ms=8, total_ms=9.75),
    ),
    "reply_inferred": Reply(
        request_id="r-2",
        task="dates",
        hypotheses=[Hypothesis(target="2024-05-05", score=-0.25)],
        confidence=0.75,
        snapshot_id="dates-12-0123456789ab",
        task_confidence=0.875,
        timings=Timings(queue_ms=1.5, compute_ms=8, total_ms=9.75),
    ),
    "reply_remembered": Reply(
        request_id="r-4",
        task="dates",
        hypotheses=[
            Hypothesis(target="2024-05-05", score=None),
            Hypothesis(target="2024-05-06", score=-0.25),
        ],
        snapshot_id="dates-12-0123456789ab",
        memory=PairName(producer="desk", pair_id="f-1"),
        timings=Timings(queue_ms=1.5, compute_ms=8, total_ms=9.75),
    ),
    "reply_error": Reply(
        request_id="r-2",
        error=ReplyError(code="missing_task", detail="name a task"),
        timings=Timings(queue_ms=0, compute_ms=0, total_ms=0.5),
    ),
    "pair_outcome": PairStatus(
        request_id="q-1",
        task="dates",
        producer="erp",
        pair_id="p-1",
        state="trained",
        step=12,
        snapshot_id="dates-12-0123456789ab",
        in_champion=True,
    ),
}
