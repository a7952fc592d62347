"""What the documents tell a person to type exists: commands, options, settings, files, limits."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from cyclopts import App

from edgeseq_core import keys
from edgeseq_core.messages import MAX_MESSAGE_BYTES, MAX_TEXT_CHARACTERS
from edgeseq_core.model.base_file import read_header
from edgeseq_core.replay.buffer import TaskSettings
from edgeseq_core.settings import CONFIG_VARIABLE, Settings
from edgeseq_core.snapshots.payloads import KEPT_HELD, KEPT_PROMOTIONS
from edgeseq_core.telemetry.metrics import MAX_TASK_LABELS
from edgeseq_services.cli.app import build
from edgeseq_services.state_dir import DIRECTORY_VARIABLE
from tests.docs.pages import IDS, PAGES, README, ROOT, blocks, code_words, commands, section

_PLACES = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_and_option_exists(page: Path) -> None:
    for line in commands(page):
        app: App = build()
        words = shlex.split(line.replace("…", "x"))[1:]
        while words and not words[0].startswith("-"):
            if words[0] not in app:
                break
            app = app[words.pop(0)]
        assert app.default_command is not None or not words or words[0] == "...", line
        if app.default_command is None:
            continue
        options = {name for one in app.assemble_argument_collection() for name in one.names}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in options, line


def test_every_command_of_the_program_is_in_the_documents() -> None:
    told = {line.split()[1] for page in PAGES for line in commands(page) if len(line.split()) > 1}
    assert {name for name in build() if not name.startswith("-")} - told == set()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_setting_exists(page: Path) -> None:
    fields = {
        f"{section}.{name}"
        for section, field in Settings.model_fields.items()
        for name in field.default.__class__.model_fields
    }
    variables = {f"EDGESEQ_{name}".upper().replace(".", "__") for name in fields}
    named = set(re.findall(r"\bEDGESEQ_\w+(?<!_)", page.read_text()))
    assert named - variables <= {CONFIG_VARIABLE, DIRECTORY_VARIABLE, "EDGESEQ"}
    for word in code_words(page):
        head, _, rest = word.partition(".")
        if head in Settings.model_fields and re.fullmatch(r"[a-z_]+", rest):
            assert word in fields, word


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_and_named_file_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
    tops = {"edgeseq_core", "services", "tests", "docs", "deploy", "monitoring", "examples"}
    for word in code_words(page):
        path = word.split("::")[0]
        if "/" in path and path.split("/")[0] in tops and _PLACES.fullmatch(path):
            assert (ROOT / path).exists(), path
        if "::" in word:
            name = word.split("::")[1]
            assert f"def {name}(" in (ROOT / path).read_text(), word


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_examples_parse_and_import_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    for line in (*lines, *code_words(page)):
        if line.startswith("make "):
            words = shlex.split(line.split(" #")[0])[1:]
            assert {word for word in words if "=" not in word} <= targets, line


def test_every_extra_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = set(re.findall(r"^\| `(\w+)` \|", section(README, "Install"), re.M))
    assert told == set(project["optional-dependencies"]) - {"all"}


def test_limits_are_those_of_the_code() -> None:
    table, settings = section(README, "Limits"), Settings()
    shipped = read_header(None).config.max_tokens - 1
    task = TaskSettings()
    assert settings.consumer.max_message_bytes == MAX_MESSAGE_BYTES
    for start, numbers in {
        "message": (MAX_MESSAGE_BYTES,),
        "source and target": (MAX_TEXT_CHARACTERS, shipped),
        "answer": (settings.predictor.max_tokens,),
        "tasks that register": (settings.consumer.max_tasks,),
        "pair ids": (settings.consumer.id_window_s, settings.consumer.id_window_pairs),
        "replies": (settings.predictor.reply_window_s,),
        "requests that wait": (settings.predictor.queue_limit,),
        "tasks in a predictor's memory": (settings.predictor.tasks_budget_bytes,),
        "fresh part": (settings.consumer.fresh_budget_bytes,),
        "reservoir": (task.reservoir_bytes,),
        "snapshots kept": (KEPT_PROMOTIONS, KEPT_HELD),
        "sender's clock": (settings.consumer.future_clock_ms,),
        "tasks with a metrics label": (MAX_TASK_LABELS,),
        "partitions": (settings.kafka.partitions,),
    }.items():
        (row,) = re.findall(rf"^\| {re.escape(start)}.*$", table, re.M)
        assert [int(n.replace(",", "")) for n in re.findall(r"\b\d[\d,]*\b", row)] == [*numbers], (
            row
        )


def test_ports_are_those_of_the_settings() -> None:
    text, settings = README.read_text(), Settings()
    for name in ("consumer", "learner", "predictor"):
        assert f"{getattr(settings, name).http_port} {name}" in text


def test_the_demo_s_accuracies_are_those_of_the_kept_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text())
    told = section(README, "Results").replace("*", "")
    for phase in results["phases"]:
        row = [phase["copying"], phase["suffix_rules"], phase["at_end"]]
        cells = " | ".join(f"{round(100 * value)} %" for value in row)
        assert cells in told, f"{phase['phase']}: {cells}"


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "[Unreleased]"
    assert keys.STATE_VERSION == 1, (
        "tell of the new state version in CHANGELOG.md and operations.md"
    )
