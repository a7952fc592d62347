"""predict, teach, correct, pair, and the decisions, against a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseq_core.messages import (
    Control,
    ControlResult,
    Feedback,
    Hypothesis,
    Message,
    Pair,
    PairStatus,
    Reply,
    ReplyError,
    Request,
    StatusQuery,
)
from tests.cli.conftest import Run
from tests.client.responder import TIMINGS, Responder, nearest_task, remembered, reply_to


def test_predict_prints_one_object_a_source(run: Run, responder: Responder) -> None:
    ran = run("predict", "dates", "abc", "x [bold]y", "--json")
    assert ran.code == 0
    first, second = ran.documents
    expected = {
        "source": "abc",
        "task": "dates",
        "task_confidence": None,
        "target": "cba",
        "confidence": 0.9,
        "abstained": False,
        "snapshot_id": "dates-1-abc",
        "error": None,
    }
    assert expected.items() <= first.items()
    assert second["target"] == "y]dlob[ x"


def test_predict_prints_text_as_it_is(run: Run, responder: Responder) -> None:
    ran = run("predict", "dates", "[red]x")
    assert ran.code == 0
    assert "[red]x → x]der[" in ran.out
    assert "90%" in ran.out
    assert "dates-1-abc" in ran.out


def test_predict_prints_further_answers_with_their_confidence(
    run: Run, responder: Responder
) -> None:
    def two(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        assert message.n_best == 2
        found = [Hypothesis(target="yes", score=-0.25), Hypothesis(target="no", score=-1.5)]
        return [reply_to(message, hypotheses=found, confidence=0.778)]

    responder.answer = two
    ran = run("predict", "dates", "abc", "--n-best", "2", "--json")
    shown = [(h["target"], round(h["confidence"], 3)) for h in ran.documents[0]["hypotheses"]]
    assert shown == [("yes", 0.779), ("no", 0.223)]
    text = run("predict", "dates", "abc", "--n-best", "2").out
    assert "yes  78%" in text
    assert "no  22%" in text


def test_predict_says_what_it_remembered(run: Run, responder: Responder) -> None:
    (plain,) = run("predict", "dates", "abc", "--json").documents
    assert plain["memory"] is None
    responder.answer = remembered
    (told,) = run("predict", "dates", "abc", "--n-best", "2", "--json").documents
    assert told["memory"] == {"producer": "desk", "pair_id": "f-1"}
    assert [one["confidence"] is None for one in told["hypotheses"]] == [True, False]
    text = run("predict", "dates", "abc", "--n-best", "2").out
    assert "abc → told  memory of desk f-1  dates-1-abc" in text
    assert "made  78%" in text


def test_predict_infers_the_task_where_it_is_told_to(
    run: Run, responder: Responder, tmp_path: Path
) -> None:
    responder.answer = nearest_task
    ran = run("predict", "--infer", "dates", "strange", "--json")
    assert ran.code == 1
    found, none = ran.documents
    expected = {"source": "dates", "task": "verbs", "task_confidence": 0.75, "target": "setad"}
    assert expected.items() <= found.items()
    assert (none["task"], none["task_confidence"]) == (None, None)
    assert none["error"]["code"] == "missing_task"
    text = run("predict", "dates", "strange", "--infer").out
    assert "dates → setad  90%  dates-1-abc  task verbs 75%" in text
    assert "strange → missing_task: name its task" in text
    file = tmp_path / "sources"
    file.write_text("one\ntwo\n")
    ran = run("predict", "--infer", "--file", str(file), "--json")
    assert [one["task"] for one in ran.documents] == ["verbs", "verbs"]


def test_predict_reads_a_file_and_fails_where_one_source_fails(
    run: Run, responder: Responder, tmp_path: Path
) -> None:
    def refuse(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        if message.source == "bad":
            error = ReplyError(code="overloaded", detail="queue is full")
            return [Reply(request_id=message.request_id, error=error, timings=TIMINGS)]
        return [reply_to(message, abstained=message.source == "unsure")]

    responder.answer = refuse
    file = tmp_path / "sources"
    file.write_bytes(b"good\n\nbad\r\nunsure\n" + b"x" * 1025 + b"\n")
    ran = run("predict", "dates", "--file", str(file), "--json")
    assert ran.code == 1
    assert [one["source"][:6] for one in ran.documents] == ["good", "bad", "unsure", "xxxxxx"]
    codes = [one["error"] and one["error"]["code"] for one in ran.documents]
    assert codes == [None, "overloaded", None, "too_long"]
    assert [one["abstained"] for one in ran.documents] == [False, False, True, False]
    text = run("predict", "dates", "bad", "unsure")
    assert text.code == 1
    assert "bad → overloaded: queue is full" in text.out
    assert "unsure → abstains" in text.out


def test_teach_sends_both_forms_and_reports_what_it_left_out(
    run: Run, responder: Responder, tmp_path: Path
) -> None:
    file = tmp_path / "pairs"
    file.write_bytes(b'a\tb\nno pair\n{"source": "c", "target": "d"}\n')
    ran = run("teach", "dates", str(file), "--producer", "me", "--id-prefix", "f", "--json")
    assert ran.code == 0
    (report,) = ran.documents
    expected = {"task": "dates", "producer": "me", "count": 2, "malformed_count": 1}
    assert expected.items() <= report.items()
    assert (report["first_pair_id"], report["last_pair_id"]) == ("f:1", "f:3")
    assert report["malformed"][0]["line"] == 2
    sent = [one.message for one in responder.wait_for(2, Pair)]
    assert [(m.source, m.target) for m in sent if isinstance(m, Pair)] == [("a", "b"), ("c", "d")]
    text = run("teach", "dates", str(file))
    assert text.code == 0
    assert "2 pairs" in text.out
    assert "line 2 left out: 1 TAB-separated fields" in text.err


def test_teach_strictly_stops_at_the_line(run: Run, responder: Responder, tmp_path: Path) -> None:
    file = tmp_path / "pairs"
    file.write_bytes(b"a\tb\n\xff\nc\td\n")
    ran = run("teach", "dates", str(file), "--strict", "--json")
    assert ran.code == 1
    assert "line 2: byte 0 is no UTF-8" in ran.error["message"]
    assert len(responder.wait_for(1, Pair)) == 1


def test_teach_nothing_is_a_failure(run: Run, responder: Responder, tmp_path: Path) -> None:
    file = tmp_path / "pairs"
    file.write_bytes(b"nothing\n")
    assert run("teach", "dates", str(file), "--json").code == 1


def test_a_wrong_task_name_is_an_error(run: Run, responder: Responder, tmp_path: Path) -> None:
    file = tmp_path / "pairs"
    file.write_bytes(b"a\tb\n")
    ran = run("teach", "No Task", str(file), "--json")
    assert ran.code == 1
    assert "task" in ran.error["message"]


def test_correct_and_pair(run: Run, responder: Responder) -> None:
    ran = run("correct", "dates", "a", "b", "--json")
    assert ran.code == 0
    (sent,) = responder.wait_for(1, Feedback)
    assert isinstance(sent.message, Feedback)
    assert ran.documents[0]["pair_id"] == sent.message.pair_id
    known = run("pair", "dates", "edgeseq-cli", sent.message.pair_id, "--json")
    assert known.code == 0
    assert {"state": "trained", "step": 3, "in_champion": True}.items() <= known.documents[
        0
    ].items()

    def unknown(message: Message) -> list[Message]:
        assert isinstance(message, StatusQuery)
        asked = {n: getattr(message, n) for n in ("request_id", "task", "producer", "pair_id")}
        return [PairStatus(**asked, state="unknown")]

    responder.answer = unknown
    assert run("pair", "dates", "nobody", "p1").code == 1


@pytest.mark.parametrize(
    ("command", "snapshot_id"),
    [
        (("promote", "dates", "dates-2-x"), "dates-2-x"),
        (("pin", "dates"), None),
        (("unpin", "dates"), None),
        (("rollback", "dates"), None),
        (("rollback", "dates", "dates-1-y"), "dates-1-y"),
    ],
)
def test_decisions(
    run: Run, responder: Responder, command: tuple[str, ...], snapshot_id: str | None
) -> None:
    ran = run(*command, "--reason", "why", "--json")
    assert ran.code == 0
    assert ran.documents[0]["ok"] is True
    (sent,) = responder.wait_for(1, Control)
    assert isinstance(sent.message, Control)
    assert (sent.message.action, sent.message.snapshot_id) == (command[0], snapshot_id)
    assert sent.message.reason == "why"


def test_a_refused_decision_is_a_failure(run: Run, responder: Responder) -> None:
    def refuse(message: Message) -> list[Message]:
        assert isinstance(message, Control)
        named = {"control_id": message.control_id, "action": message.action}
        return [ControlResult(**named, ok=False, error="it has no earlier champion")]

    responder.answer = refuse
    ran = run("rollback", "dates")
    assert ran.code == 1
    assert "it has no earlier champion" in ran.out
