"""How Hypothesis runs here: on a machine that does other things, an example's time says nothing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("roost", deadline=None)
settings.load_profile("roost")
