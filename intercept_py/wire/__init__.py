"""The wire: strict JSON-RPC messages in, commands out. No I/O."""
