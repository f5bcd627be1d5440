"""What the kernel killed, from the counters of both kinds of cgroup."""

from __future__ import annotations

from pathlib import Path

from roost_node import kills

V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V2 = "low 0\nhigh 0\nmax 7\noom 5\noom_kill {}\noom_group_kill 0\n"


def test_both_kinds_are_counted(tmp_path: Path) -> None:
    for text in (V1, V2):
        (tmp_path / "counter").write_text(text.format(3))
        assert kills.count((str(tmp_path / "none"), str(tmp_path / "counter"))) == 3
    assert kills.count((str(tmp_path / "none"),)) == 0


def test_only_new_kills_are_told(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text(V2.format(1))
    watch = kills.Watch((str(counter),))
    assert watch.look() == ""
    counter.write_text(V2.format(2))
    assert watch.look().endswith("the kernel killed a process in it")
    assert watch.look() == ""
    counter.write_text(V2.format(5))
    assert watch.look().endswith("the kernel killed 3 processes in it")
