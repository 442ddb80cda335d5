"""Policies: YAML text in, an immutable compiled `Policy` and pure decisions out. No I/O, no clock, no counters."""
