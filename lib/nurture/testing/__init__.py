"""Means for tests of training runs: configs made small, run directories damaged, absurd numbers put into configs."""
