"""Twins for tests: a clock that is set by hand, an engine that answers by rule."""
