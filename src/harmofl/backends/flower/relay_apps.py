"""HarmoFL's parts of a Flower run, which only relay; the training is done by `harmofl deploy serve` and `join`.

Flower starts the client part anew for every message, which takes a second without torch and several with it.
"""

import json
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from harmofl.backends.flower.grid_transport import GridTransport, answered
from harmofl.federated.relay import relay, relayed

server_app, client_app = ServerApp(), ClientApp()


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """Relay between the server's process and the grid until the run is over.

    The run's configuration has `relay`, the file of the process's `RelayListener`, and `keys`, a JSON file with the
    public key of each site by its name.
    """
    keys = json.loads(Path(str(context.run_config["keys"])).read_text())
    relay(Path(str(context.run_config["relay"])), GridTransport(grid, keys))


def join(message: Message, context: Context) -> Message:
    """Relay a message to the site's process and return its answer; the node's configuration has its `relay` file."""
    return answered(message, lambda kind, content: relayed(Path(str(context.node_config["relay"])), kind, content))


for register in (client_app.train, client_app.query, client_app.evaluate):
    register()(join)
