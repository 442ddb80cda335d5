"""Who calls: bearer tokens become a `Caller`, or the answer that refuses them; and the proxy's own tokens for servers.

Below: `wire.codec` (strict JSON), `private_files`. Above: the gateway, which asks an `Authenticator` about every HTTP
request, and the command `tokens`.
"""

from __future__ import annotations

__all__ = ["Authenticator", "IdentityError", "Issuer", "Settings", "Unauthorized"]

from intercept_py.identity.authenticator import Authenticator
from intercept_py.identity.faults import IdentityError, Unauthorized
from intercept_py.identity.settings import Issuer, Settings
