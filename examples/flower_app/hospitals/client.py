"""A site: one round of HarmoFL on the site's own images; what it keeps stays in Flower's context."""

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from harmofl import run_client
from harmofl.backends.flower.grid_transport import from_record, to_record
from harmofl.federated.messages import ClientState
from harmofl.federated.wire import pack_update, unpack_broadcast
from hospitals.task import METHOD, site, training

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the update; momentum and the like are kept for the next round."""
    number = int(context.node_config["partition-id"])
    kept: ClientState = {group: arrays.to_torch_state_dict() for group, arrays in context.state.array_records.items()}
    _, broadcast = unpack_broadcast(from_record(message.content))
    update, state = run_client(METHOD, site(number), broadcast, kept, training())
    for group, arrays in state.items():
        context.state[group] = ArrayRecord(dict(arrays))
    return Message(to_record(pack_update(update)), reply_to=message)
