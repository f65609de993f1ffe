"""Fixtures of several modules."""

from tests.effects.fake_engines import odd, start

__all__ = ["odd", "start"]
