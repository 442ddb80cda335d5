"""What several tests share: upstream servers that behave and misbehave, and a raw client that talks to the proxy."""
