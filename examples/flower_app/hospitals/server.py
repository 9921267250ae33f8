"""The server: broadcast, collect, aggregate; add whatever your project needs between the lines."""

import time

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from harmofl import ServerState
from harmofl.backends.flower.grid_transport import from_record, to_record
from harmofl.federated.wire import pack_broadcast, unpack_update
from hospitals.task import METHOD, training

app = ServerApp()
SITES = 2


def federate(grid: Grid, rounds: int) -> ServerState:
    """Train and return the global model."""
    server = METHOD.start(training().model, SITES)
    while len(nodes := list(grid.get_node_ids())) < SITES:
        time.sleep(1)
    for _ in range(rounds):
        content = to_record(pack_broadcast(METHOD.broadcast(server), {}))
        messages = [Message(content, dst_node_id=node, message_type="train") for node in nodes]
        updates = [unpack_update(from_record(reply.content)) for reply in grid.send_and_receive(messages)]
        server = METHOD.aggregate(server, sorted(updates, key=lambda update: update.site))
        print(f"round {server.round}: loss {sum(update.loss for update in updates) / len(updates):.3f}")
    return server


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What Flower calls."""
    federate(grid, int(context.run_config["rounds"]))
