"""A small part of `./test soak --fuzz`, always the same."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from fuzz import outcomes


def test_whatever_is_asked_the_answer_is_a_sentence() -> None:
    found = set(outcomes(seed=4, numbers=range(600)))
    # All kinds of answers are among them: the inputs are neither all good nor all bad.
    assert found >= {
        ("pool_file", "refused"),
        ("pool_file", "undone"),
        ("node_line", "refused"),
        ("node_line", "accepted"),
    }
