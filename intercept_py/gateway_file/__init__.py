"""The file of `intercept-py serve`: several servers behind one port, each with a policy of its own.

`read` tells every mistake in it, with its place; `surroundings` looks for what it names and is somewhere else.
Below: the strict reader of policies, the checks of URLs and header fields. Above: `cli`.
"""

from __future__ import annotations

__all__ = ["Auth", "Command", "Gateway", "Issuer", "OAuth", "Reference", "Remote", "Server", "Value", "read"]

from intercept_py.gateway_file.loader import read
from intercept_py.gateway_file.model import Auth, Command, Gateway, Issuer, OAuth, Reference, Remote, Server, Value
