"""verify.py DOCUMENT ROOT MILLISECONDS: whether epsilon-attestation-verifier accepts an attestation document.

The arguments and exit codes are those of all verifiers, in the README of `oracles`. The library takes no time but asks
datetime.now(), so that its name for datetime is given one that answers with MILLISECONDS.
"""

import base64
import datetime
import pathlib
import sys
import traceback

import epsilon_verifier
import epsilon_verifier.verifier

ACCEPTED, REFUSED, UNKNOWN = 0, 1, 2


def clock(millis: int) -> type:
    """A datetime whose present is at Unix time `millis`."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(millis / 1000, tz)

    return Clock


def main() -> int:
    document, root, millis = sys.argv[1:]
    epsilon_verifier.verifier.datetime = clock(int(millis))
    result = epsilon_verifier.verify_attestation(
        base64.b64encode(pathlib.Path(document).read_bytes()).decode(),
        aws_root_cert_path=root,
    )
    if not result.valid:
        print(result.error, file=sys.stderr)
        return REFUSED
    print(result.module_id)
    return ACCEPTED


try:
    sys.exit(main())
except Exception:
    traceback.print_exc()
    sys.exit(UNKNOWN)
