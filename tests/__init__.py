"""Tests of intercept-py; the tree mirrors the package, `support` holds what tests share."""
