"""Every mistake in a gateway file that no policy can have, one template each, like `policy.messages`.

`tests/gateway_mistakes` holds at least one small file for each of them; a test fails for a template without one.
"""

from __future__ import annotations

REFUSED = "{detail}"

# The gateway
BAD_LISTEN = '`{text}` is no address to listen at: write HOST:PORT, such as `127.0.0.1:8000` or `"[::1]:8000"`'
OPEN_TO_OTHERS = (
    "other machines reach the gateway at `{host}`, and everybody there could call: add `auth`, or listen at `127.0.0.1`"
)
PUBLIC_TO_OTHERS = "`public_url` is where others reach the gateway, and everybody could call: add `auth`"
NO_PUBLIC_URL = "other machines reach the gateway at `{host}`: add `public_url`, by which they do"
BAD_PUBLIC_URL = "the URL of the gateway has no query: delete `{text}`"
BAD_SCOPE = '`{text}` is no scope: use visible ASCII characters, without `"` and `\\` (RFC 6749, 3.3)'
NOBODY = "`auth` lets nobody in: add `tokens` or `issuer`, or delete it"

# Servers
NO_SERVERS = "`servers` lists no server: name at least one"
BAD_NAME = "`{name}` cannot stand in a URL: use at most 63 lower-case letters, digits and `-`, a letter or digit first"
BAD_NAME_GUESS = "`{name}` cannot stand in a URL: write `{guess}`"
NO_UPSTREAM = "the server cannot be reached: add `command`, by which it is started, or `url`"
TWO_UPSTREAMS = "`command` and `url` exclude each other: keep one"
NEEDS_COMMAND = "`{name}` is for a server that is started by `command`: delete it"
NEEDS_URL = "`{name}` is for a server that is reached by `url`: delete it"
COMMAND_IS_TEXT = "`command` is a list of words: write `{guess}`"
NO_WORDS = "`command` is an empty list: name the program, and its arguments"
NO_PROGRAM = "the program has no name: write one"
NOT_TEXT = "`{name}` takes text, not {got}: quote it"
NUL = "`{name}` holds a NUL, which no program can be given: remove it"
BAD_VARIABLE = "`{name}` cannot name an environment variable: use letters, digits and `_`"
REPEATED_HEADER = "`{name}` is the same header as `{other}`: keep one"
TWO_AUTHORIZATIONS = "`oauth` brings an `Authorization` header already: delete this one, or `oauth`"
CREDENTIALS_IN_URL = "the URL holds credentials: keep them elsewhere, and name them in `headers`"

# Texts, numbers and secrets
OUT_OF_RANGE = "`{name}` is {text}, but must be {values}"
BAD_SPAN = "`{text}` is no span of time: write seconds (`90`), or `90s`, `5m`, `2h`, `1d`"
SPAN_RANGE = "`{name}` is {text}, but must be from {least} to 7d"
LITERAL_SECRET = (
    "`{name}` looks like a secret, which whoever reads this file would know: "
    'write `env:NAME` or `"@FILE"`, where it is kept'
)
NOT_A_SECRET = '`{name}` is not written down here: write `env:NAME` or `"@FILE"`, where it is kept'
BAD_REFERENCE = "`{text}` leads nowhere: write `env:` and the name of a variable, or `@` and that of a file"
