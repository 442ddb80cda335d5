"""What several tests share: upstream servers that behave and misbehave, and a raw client that talks to the proxy."""

import gc

# Servers of these are started some hundred times: to look for garbage in what imports create, which stays, takes a
# fifth of that. More rarely is often enough for what they do.
gc.set_threshold(50_000)
