"""`python -m tests.conformance.client PAIRING FOLDER URL`: the SDK client that the suite checks, through a pairing.

Below: pairings, conformance_client. Above: the suite, which starts it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conformance.pairings import for_client, for_sdk
from tests.support import conformance_client


def main(pairing: str, folder: str, url: str) -> None:
    with for_client(pairing, url, Path(folder)) as server:
        conformance_client.main(for_sdk(server))


if __name__ == "__main__":
    main(*sys.argv[1:])
