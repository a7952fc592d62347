"""CPUs of a process by control groups of both versions, in trees as Linux lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeseq_core.errors import ConfigError
from edgeseq_core.settings import load_settings
from edgeseq_services import cpus
from edgeseq_services.cpus import usable_cpus
from edgeseq_services.predictor import threads

MANY = 64


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_affinity", lambda: MANY)


class Tree:
    """A tree of control groups, and the file that says in which one the process is."""

    def __init__(self, folder: Path) -> None:
        self.root, self.own = folder / "cgroup", folder / "self"

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def cpus(self) -> int:
        return usable_cpus(cgroups=self.root, own=self.own)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("max 100000\n", MANY),
        ("6400000 50000\n", MANY),
        ("", MANY),
        ("nonsense\n", MANY),
        ("100000 0\n", MANY),
    ],
)
def test_version_2(tree: Tree, text: str, expected: int) -> None:
    tree.own.write_text("0::/\n")  # as a container sees itself
    tree.write("cpu.max", text)
    assert tree.cpus() == expected


def test_the_tightest_group_above_counts(tree: Tree) -> None:
    tree.own.write_text("0::/kubepods/pod1/box\n")
    tree.write("kubepods/cpu.max", "800000 100000\n")
    tree.write("kubepods/pod1/cpu.max", "300000 100000\n")
    tree.write("kubepods/pod1/box/cpu.max", "max 100000\n")
    tree.write("kubepods/pod2/cpu.max", "100000 100000\n")  # somebody else's
    assert tree.cpus() == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(
    "group", ["docker/abc", "."]
)  # a container mounts its own group as the root
def test_version_1(tree: Tree, mount: str, group: str) -> None:
    tree.own.write_text("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n")
    tree.write(f"{mount}/{group}/cpu.cfs_quota_us", "400000\n")
    tree.write(f"{mount}/{group}/cpu.cfs_period_us", "100000\n")
    assert tree.cpus() == 4
    tree.write(f"{mount}/{group}/cpu.cfs_quota_us", "-1\n")
    assert tree.cpus() == MANY


def test_without_control_groups_the_affinity_counts(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tree.cpus() == MANY
    monkeypatch.undo()
    assert tree.cpus() == len(os.sched_getaffinity(0))


def test_a_predictor_takes_the_threads_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads(load_settings()) == 1
    assert threads(load_settings(predictor={"threads": 3})) == 3
    monkeypatch.setenv("EDGESEQ_PREDICTOR__THREADS", "auto")
    monkeypatch.setattr("edgeseq_services.predictor.usable_cpus", lambda: 7)
    assert threads(load_settings()) == 7
    assert load_settings().as_environment() == {"EDGESEQ_PREDICTOR__THREADS": "auto"}
    monkeypatch.setenv("EDGESEQ_PREDICTOR__THREADS", "0")
    with pytest.raises(ConfigError, match="threads"):
        load_settings()
