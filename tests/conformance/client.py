"""`python -m tests.conformance.client PAIRING FOLDER URL`: the SDK client that the suite checks, through a pairing.

Credentials that the suite gives the client are the proxy's own for the server, where there is a proxy: the client has
none then.

Below: pairings, credentials, conformance_client. Above: the suite, which starts it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.conformance.credentials import options
from tests.conformance.pairings import ALONE, for_client, for_sdk
from tests.support import conformance_client


def main(pairing: str, folder: Path, url: str) -> None:
    if pairing == ALONE:
        conformance_client.main(url)
        return
    given = conformance_client.context()
    credentials: list[str] = []
    if "client_secret" in given:
        credentials = options(url, given["client_id"], given["client_secret"], folder)
        del os.environ[conformance_client.CONTEXT]
    with for_client(pairing, url, folder, credentials) as server:
        conformance_client.main(for_sdk(server))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
