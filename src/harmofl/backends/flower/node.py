"""Site side of the connection: connect outwards to the server, answer its messages, reconnect after any break."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from harmofl.backends.flower.proxies import proxy_of
from harmofl.errors import ConfigError, RunError

log = logging.getLogger("harmofl")
BEAT, SHORTEST, LONGEST = 10.0, 0.1, 0.5
"""Seconds between heartbeats, and between checks for a message: at first, and after some time without one."""
PATIENCE = 30.0
"""Longest pause in seconds before the next attempt to connect."""


def attend(address: str, key: bytes, authority: bytes | None, app: ClientApp, over: Callable[[], bool]) -> None:
    """Answer the server's messages until `over` returns True.

    If the server cannot be reached or goes away, connecting is retried without limit.

    Args:
        address: HOST:PORT of the server.
        key: the site's private key, PEM.
        authority: certificate of the authority that must have signed the server's, PEM; None connects without TLS.
        app: client app that answers the messages, see `client_app`.
        over: called after every answer.

    Raises:
        ConfigError: if the server's certificate is not signed by the authority, the key cannot be used, or the
            environment names an invalid proxy.
        RunError: if the server does not know the key.
    """
    private = private_key(key)
    proxy = proxy_of(address.rpartition(":")[0].strip("[]"), "http" if authority is None else "https")
    by = f" by way of {proxy}" if proxy else ""
    auth = NodeAuthHttpInterceptor(private, private.public_key())
    pause, told = SHORTEST, ""
    while not over():
        begin = time.monotonic()
        try:
            with (
                FleetHttpClient.from_server_address(address, authority is None, authority, [auth]) as client,
                _connected(client, private) as node,
            ):
                log.info("connected to %s", address)
                told = ""
                _answer_all(client, node, app, over)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 403 and error.request.url.path.endswith("/activate-node"):
                raise RunError(
                    f"{address}{by}: the server must know this site's key, but does not; give its operator the "
                    "site's public key, or use the folder that was made for this federation"
                ) from None
            hint = ", as for a wrong clock" if error.response.status_code == 401 else ""
            reason = f"it answers {error.response.status_code}{hint}"
        except (httpx.HTTPError, OSError, ValueError, ObjectPullError) as error:
            if "certificate verify failed" in str(error).lower():
                raise ConfigError(
                    f"{address}{by}: the server's certificate must be signed by this federation's authority (ca.pem) "
                    f"and be for this address, but: {str(error).split('(_ssl')[0].strip()}"
                ) from None
            reason = str(error) or type(error).__name__
        else:
            continue
        reason = (proxy.fault() if proxy else "") or f"no answer from the server{by} ({reason})"
        if reason != told:
            log.warning("%s: %s; trying again until it is there", address, reason)
        lasted = time.monotonic() - begin > PATIENCE
        told, pause = reason, SHORTEST if lasted else min(2 * pause, PATIENCE)
        time.sleep(pause)


def private_key(content: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the key in a PEM file; raise ConfigError if there is none that Flower can use."""
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"a site's key must be an elliptic-curve private key in PEM, but: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"a site's key must be an elliptic-curve private key, got {type(key).__name__}")
    return key


@contextmanager
def _connected(client: FleetHttpClient, key: ec.EllipticCurvePrivateKey) -> Iterator[Node]:
    """Keep the site connected to the server within the context, with heartbeats."""
    public = public_key_to_bytes(key.public_key())
    answer = client.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=BEAT))
    node, gone = Node(node_id=answer.node_id), threading.Event()

    def beat() -> None:
        while not gone.wait(BEAT):
            try:
                client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=node, heartbeat_interval=BEAT))
            except (httpx.HTTPError, RuntimeError):
                continue  # the next check for a message reports the error

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield node
    except (httpx.HTTPError, OSError, ValueError, ObjectPullError):
        raise  # the site will reconnect
    except BaseException:
        _leave(client, node)
        raise
    else:
        _leave(client, node)
    finally:
        gone.set()


def _leave(client: FleetHttpClient, node: Node) -> None:
    with suppress(httpx.HTTPError, RuntimeError):
        client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))


def _answer_all(client: FleetHttpClient, node: Node, app: ClientApp, over: Callable[[], bool]) -> None:
    pause = SHORTEST
    while not over():
        message = _next_message(client, node)
        if message is None:
            pause = min(1.2 * pause, LONGEST)
            time.sleep(pause)
            continue
        pause = SHORTEST
        begin = time.monotonic()
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = message.metadata.run_id, node.node_id, 1
        context = Context(
            run_id=message.metadata.run_id, node_id=node.node_id, node_config={}, state=RecordDict(), run_config={}
        )
        with suppress(ObjectPushError):  # the server no longer waits for it
            _push(client, node, app(message, context), time.monotonic() - begin)


class _TakenBackError(Exception):
    """The server has withdrawn its message."""


def _next_message(client: FleetHttpClient, node: Node) -> Message | None:
    """Return the server's next message; None if there is none, or if it was withdrawn while being read."""
    pulled = client.PullMessages(PullMessagesRequest(node=node))
    if not pulled.messages_list:
        return None
    head = message_from_proto(pulled.messages_list[0])
    run, name = head.metadata.run_id, head.metadata.message_id
    parts = [part.object_id for part in iterate_object_tree(pulled.message_object_trees[0])]
    pull = make_pull_object_fn_protobuf(client.PullObject, node, run)

    def fetch(part: str) -> bytes:
        try:
            return pull(part)
        except ObjectPullError:
            raise _TakenBackError from None

    try:
        contents = pull_objects(parts, fetch)
    except _TakenBackError:  # do not reconnect: the server would then withdraw its next message too
        return None
    make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, run)(name)
    message = inflate_object_from_contents(name, contents)
    assert isinstance(message, Message)
    message.metadata.__dict__["_message_id"] = name
    return message


def _push(client: FleetHttpClient, node: Node, reply: Message, seconds: float) -> None:
    run = reply.metadata.run_id
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects, tree = get_all_nested_objects(reply), get_object_tree(reply)
        answer = client.PushMessages(
            PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[tree],
                clientapp_runtime_list=[seconds],
            )
        )
        push = make_push_object_fn_protobuf(client.PushObject, node, run, answer.session_id)
        push_objects(objects, push, object_ids_to_push=set(answer.objects_to_push))
