"""Where settings come from, and what an error says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseq_core.errors import ConfigError
from edgeseq_core.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [n for n in os.environ if n.startswith("EDGESEQ_")]:
        monkeypatch.delenv(name)


def test_flags_beat_environment_beats_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "edgeseq.toml"
    file.write_text('[kafka]\nbootstrap = "file:1"\ntopic_prefix = "file"\npartitions = 3\n')
    monkeypatch.setenv("EDGESEQ_CONFIG", str(file))
    monkeypatch.setenv("EDGESEQ_KAFKA__BOOTSTRAP", "env:1")
    monkeypatch.setenv("EDGESEQ_KAFKA__TOPIC_PREFIX", "env")
    settings = load_settings(kafka={"bootstrap": "flag:1"})
    assert settings.kafka.bootstrap == "flag:1"
    assert settings.kafka.topic_prefix == "env"
    assert settings.kafka.partitions == 3
    assert settings.predictor.champions_poll_ms == 50


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("EDGESEQ_KAFKA__PARTITIONS", "0", "kafka.partitions"),
        (
            "EDGESEQ_PREDICTOR__THREADS",
            "many",
            "setting predictor.threads is wrong.*PREDICTOR__THREADS or",
        ),
        ("EDGESEQ_KAFKA__BOGUS", "1", "no setting kafka.bogus"),
        ("EDGESEQ_LEARNING__REPLAY", "luck", "'reservoir', 'balanced', 'loss' or 'mir'"),
        ("EDGESEQ_LEARNING__ANCHOR_STRENGTH", "-1", "LEARNING__ANCHOR_STRENGTH"),
        ("EDGESEQ_LEARNING__TEACHER_WEIGHT", "nan", "LEARNING__TEACHER_WEIGHT"),
        ("EDGESEQ_LEARNING__STABLE_AVERAGING", "1", "LEARNING__STABLE_AVERAGING"),
        ("EDGESEQ_LEARNING__OBJECTIVE", "consistency", "wrong .objective consistency needs"),
        ("EDGESEQ_LOG__LEVEL", "loud", "EDGESEQ_LOG__LEVEL"),
        ("EDGESEQ_CONFIG", "/nowhere/edgeseq.toml", "/nowhere/edgeseq.toml"),
        ("EDGESEQ_KAFKA", "{", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=says) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_broken_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "edgeseq.toml"
    file.write_text("[kafka")
    monkeypatch.setenv("EDGESEQ_CONFIG", str(file))
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings()


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEQ_KAFKA__SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("EDGESEQ_REDIS__URL", "rediss://user:hunter2@cache:6380/1")
    settings = load_settings()
    shown = json.dumps(settings.redacted()) + repr(settings) + str(settings)
    assert "hunter2" not in shown
    assert "rediss://***@cache:6380/1" in shown


def test_a_wrong_secret_is_not_echoed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEQ_KAFKA__PARTITIONS", "hunter2")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_settings_are_frozen_and_default() -> None:
    settings = Settings()
    assert settings.consumer.http_port == 9101
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka.partitions = 9  # type: ignore[misc]


def test_another_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(
        kafka={"bootstrap": "broker:1", "sasl_password": "hunter2", "ssl_cafile": "/ca.pem"},
        consumer={"auto_register": False, "http_port": 0},
        redis={"declared_policy": None},
    )
    assert settings.chosen("kafka", "bootstrap")
    assert not settings.chosen("kafka", "partitions")
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings().model_dump() == settings.model_dump()
    assert load_settings().kafka.sasl_password == settings.kafka.sasl_password


def test_importing_settings_needs_no_torch() -> None:
    code = "import sys, edgeseq_core.settings; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
