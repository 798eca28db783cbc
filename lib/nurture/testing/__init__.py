"""Means for tests: facts of data, configs made small, run directories damaged, absurd numbers put into configs."""

from nurture.testing.specs import class_spec

__all__ = ["class_spec"]
