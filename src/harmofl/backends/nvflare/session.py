"""The administrator's session with an NVFlare server, for requests on the standard input: one JSON object a line.

    {"do": "clients"}                   -> {"clients": [name, ...]}
    {"do": "submit", "folder": job}     -> {"job": id}
    {"do": "abort", "job": id}          -> {}

The answer to a request that fails is {"error": reason}, and ends the process.
"""

import json
import os
import sys
from typing import Any

from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from harmofl.backends.nvflare.kits import ADMINISTRATOR

_CONNECT_S = 10.0


def answer(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request."""
    if request["do"] == "clients":
        return {"clients": [client.name for client in session.get_connected_client_list()]}
    if request["do"] == "submit":
        return {"job": session.submit_job(request["folder"])}
    session.abort_job(request["job"])
    return {}


def main() -> None:
    """Answer requests until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr  # NVFlare prints there
    session = None
    for line in sys.stdin:
        try:
            session = session or new_secure_session(ADMINISTRATOR, sys.argv[1], timeout=_CONNECT_S)
            found = answer(session, json.loads(line))
        except Exception as error:  # of NVFlare's many kinds
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=out, flush=True)
        if "error" in found:
            break
    os._exit(0)  # threads of a session outlast its server


if __name__ == "__main__":
    main()
