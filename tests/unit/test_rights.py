"""The page shows the rights that a real pool is asked about, and no others."""

from __future__ import annotations

from pathlib import Path

from rights import DAEMONS, LEVELS, RIGHTS, markdown

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def test_the_table_on_the_page_is_the_one_that_is_tested() -> None:
    assert markdown() in PAGE.read_text()


def test_every_right_is_a_level_that_is_asked_about() -> None:
    given = {level for each in RIGHTS.values() for daemon in DAEMONS for level in each.at(daemon)}
    assert given <= set(LEVELS)
    # Nobody may do these two over the network but the central manager to access points.
    assert "CONFIG" not in given
    assert [who for who, each in RIGHTS.items() if "NEGOTIATOR" in each.schedd] == ["master"]
