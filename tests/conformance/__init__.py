"""The official conformance suite, directly and through every pairing of the proxy; `scripts/conformance` runs it."""
