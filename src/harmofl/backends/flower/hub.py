"""Server side of the connection: Flower's Fleet API on one port, and a grid to the connected sites.

It has only those parts of Flower's SuperLink that sites need: no Control API, nothing to start a run or send code.
"""

import logging
import threading
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.serverapp import Grid
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLWR_IN_MEMORY_DB_NAME,
    NOOP_FEDERATION_ID,
    TaskType,
)
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import get_objectstore_linkstate_factories
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from harmofl.backends.flower.door import Certificate, Door, telling
from harmofl.backends.flower.grid_transport import GRACE_S, GridTransport, reply_of, to_record
from harmofl.errors import RunError
from harmofl.federated.transport import Reply

log = logging.getLogger("harmofl")
LARGEST, MOST = 64 << 20, 100_000
"""Largest number of bytes of a request, and of parts of an answer; Flower sends arrays in pieces."""
AWAY = 60.0
"""Seconds that a site may be disconnected before its message counts as lost."""
_LOOK, _BEAT = 0.05, 10.0
"""Seconds between checks for answers, and between the heartbeats that Flower requires of its own run."""


@dataclass
class _Asked:
    """A message that waits for its answer.

    Args:
        message: the message as sent.
        since: number of times its site had connected before.
        answered: True if the head of an answer has arrived.
        seen: time at which the site was last connected.
        head: head of the answer, once it has been read.
        contents: objects of the answer received so far.
    """

    message: Message
    since: int
    answered: bool = False
    seen: float = field(default_factory=time.monotonic)
    head: Message | None = None
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def node(self) -> int:
        """The node the message was sent to."""
        return int(self.message.metadata.dst_node_id)


class Hub(Grid):
    """Grid that listens for sites and carries messages to the connected ones.

    Args:
        host: address to listen at.
        port: port to listen at; 0 takes any free port, see the attribute.
        keys: public key of each site that may connect, as Flower writes it (PEM), by site name.
        certificate: TLS certificate; None listens without TLS, for use behind a TLS proxy.

    Attributes:
        nodes: Flower node of each site, by name.
        port: port it listens at.
    """

    def __init__(self, host: str, port: int, keys: Mapping[str, bytes], certificate: Certificate | None) -> None:
        for name in ("flwr", "uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        manager = NoOpFederationManager()
        _, self._factory = get_objectstore_linkstate_factories(FLWR_IN_MEMORY_DB_NAME, manager)
        self._state = self._factory.state()
        self.nodes = {
            name: self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0, name=name)
            for name, key in keys.items()
        }
        self._keys, self._times, self._open = set(keys.values()), dict[int, int](), dict[str, _Asked]()
        _whole_trees(self._state.object_store)
        self._run = self._state.create_run(
            "harmofl/harmofl", "0", None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task = self._state.get_run_info(run_ids=[self._run])[0].primary_task_id
        assert task is not None
        self._task = task
        self._state.claim_task(task)
        self._state.activate_task(task)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = self._run, SUPERLINK_NODE_ID, task
        self._closed, self._lapsed = threading.Event(), False
        self._door = Door(host, port, certificate, self._app())
        self.port = self._door.port
        threading.Thread(target=self._live, daemon=True).start()

    def _app(self) -> FastAPI:
        middleware = [
            Middleware(BaseHTTPMiddleware, dispatch=telling),
            Middleware(BaseHTTPMiddleware, dispatch=self._known),
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
            Middleware(BaseHTTPMiddleware, dispatch=self._authenticated),
        ]
        app = FastAPI(middleware=middleware, docs_url=None, redoc_url=None, openapi_url=None)
        app.state.linkstate_factory = self._factory
        app.state.enable_supernode_auth = True
        app.include_router(router)
        return app

    async def _known(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Refuse requests without a site's key and too large ones, before their body is read."""
        try:
            key = b64decode(request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            size = int(request.headers["content-length"])
        except (KeyError, ValueError):
            return Response(status_code=403)
        if key not in self._keys:
            return Response(status_code=403)
        return Response(status_code=413) if not 0 <= size <= LARGEST else await call_next(request)

    async def _authenticated(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Refuse answers in another site's name; deactivate the old connection of a site that reconnects."""
        sent = getattr(request.state, "protobuf_request", None)
        if isinstance(sent, PushMessagesRequest) and not self._is_answer(sent):
            return Response(status_code=400)
        if not isinstance(sent, ActivateNodeRequest):
            return await call_next(request)
        node = self._state.get_node_id_by_public_key(sent.public_key)
        if node is not None:  # a killed process could not deactivate its node
            if node in self._state.get_nodes(self._run):
                name = next(name for name, known in self.nodes.items() if known == node)
                log.warning("%s connects anew: its line broke, or two processes have its key", name)
            self._state.deactivate_node(node)
        answer = await call_next(request)
        if node is not None:  # counted when messages can reach it, before it gets the response
            self._times[node] = self._times.get(node, 0) + 1
        return answer

    def _is_answer(self, sent: PushMessagesRequest) -> bool:
        """Return True if a request is the first answer of the right site to one message, with a sound object tree."""
        if len(sent.messages_list) != 1 or len(sent.message_object_trees) != 1:
            return False
        about, tree = sent.messages_list[0].metadata, sent.message_object_trees[0]
        asked = self._open.get(about.reply_to_message_id)
        if asked is None:  # late or already answered: Flower reports it
            return bool(about.src_node_id == sent.node.node_id)
        if about.src_node_id != sent.node.node_id or asked.node != sent.node.node_id or asked.answered:
            return False
        if about.message_id != tree.object_id or not self._is_sound(tree):
            return False
        asked.answered = True
        return True

    def _is_sound(self, tree: ObjectTree) -> bool:
        """Return True if each object lists the same children everywhere in the tree and in the object store."""
        parts: dict[str, list[str]] = {}
        waiting, count = [tree], 0
        while waiting:
            part, count = waiting.pop(), count + 1
            own = [child.object_id for child in part.children]
            if count > MOST or parts.setdefault(part.object_id, own) != own:
                return False
            waiting.extend(part.children)
        store: Any = self._state.object_store
        with store.lock_store:
            known = {name: store.store[name].child_object_ids for name in parts if name in store.store}
        return all(bool(parts[name] == own) for name, own in known.items())

    def _live(self) -> None:
        while not self._closed.wait(_BEAT):
            if not self._state.acknowledge_task_heartbeat(self._task):
                self._lapsed = True

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._closed.set()
        self._door.close()

    def connected(self) -> set[str]:
        """Return the names of the sites that are connected and have sent a recent heartbeat."""
        there = self._state.get_nodes(self._run)
        return {name for name, node in self.nodes.items() if node in there}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages, and yield the answers as they arrive, until all have arrived or the timeout is over.

        A site that reconnects before it has answered gets its message again.
        """
        end = None if timeout is None else time.monotonic() + timeout
        for message in messages:
            self._ask(message)
        try:
            while self._open and (end is None or time.monotonic() < end):
                for name in self._answered():
                    reply = self._whole(self._open[name])
                    self._drop(name)
                    yield reply
                for name, asked in list(self._open.items()):
                    if self._times.get(asked.node, 0) != asked.since:
                        self._drop(name)
                        self._ask(asked.message)
                time.sleep(_LOOK)
        finally:
            for name in list(self._open):
                self._drop(name)

    def _ask(self, message: Message) -> None:
        about = message.metadata
        fresh = Message(message.content, about.dst_node_id, about.message_type, ttl=about.ttl, group_id=about.group_id)
        since = self._times.get(about.dst_node_id, 0)
        self._open[self._send(fresh)] = _Asked(fresh, since)

    def _drop(self, name: str) -> None:
        """Delete a message and the parts of its answer received so far."""
        asked = self._open.pop(name)
        self._state.delete_messages({name})
        for root in [name, *([str(asked.head.metadata.message_id)] if asked.head else [])]:
            self._state.object_store.delete(root)

    def since(self, site: str) -> int:
        """Return the number of times that a site has connected."""
        return self._times.get(self.nodes[site], 0)

    def _answered(self) -> list[str]:
        """Return the messages with an answer, complete or an error; an answer's objects arrive after its head.

        A disconnected site has time to reconnect: a query now would make Flower reply that the site is gone.
        """
        there, now = self._state.get_nodes(self._run), time.monotonic()
        heads: set[str] = set()
        for name, asked in self._open.items():
            asked.seen = now if asked.node in there else asked.seen
            if asked.head is None and (asked.answered or now - asked.seen > AWAY):
                heads.add(name)
        for head in self._state.get_message_res(message_ids=heads, run_id=self._run) if heads else ():
            self._open[head.metadata.reply_to_message_id].head = head
        return [name for name, asked in self._open.items() if asked.head is not None and self._complete(asked)]

    def _send(self, message: Message) -> str:
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            objects, tree = get_all_nested_objects(message), get_object_tree(message)
            session = self._state.start_session(self._run)
            head = remove_content_from_message(message)
            stored, missing = self._state.store_message_and_object_tree(head, tree, session)
            if not stored or self._lapsed:
                raise RunError("Flower's run must be alive, but has ended, as after a suspend; serve again")
            for name in missing:
                self._state.store_object(self._run, session, name, objects[name].deflate())
        return str(message.metadata.message_id)

    def _complete(self, asked: _Asked) -> bool:
        """Return True if all objects of the answer have arrived, or can no longer arrive."""
        assert asked.head is not None
        if asked.head.has_error():
            return True
        store, name = self._state.object_store, asked.head.metadata.message_id
        try:
            parts = [part.object_id for part in iterate_object_tree(store.get_object_tree(name))]
        except NoObjectInStoreError:
            return True
        asked.contents = {part: store.get(part) or b"" for part in parts}
        return all(asked.contents.values())

    def _whole(self, asked: _Asked) -> Message:
        """Return the answer with the objects sent after its head, or an error if they form no message."""
        head = asked.head
        assert head is not None
        if head.has_error():
            return Message(Error(head.error.code, head.error.reason), reply_to=asked.message)
        name = head.metadata.message_id
        try:
            message = inflate_object_from_contents(name, asked.contents)
        except Exception as error:  # any bytes that a site may send
            reason = f"its answer cannot be read ({' '.join(str(error).split())[:200]})"
            return Message(Error(code=0, reason=reason), reply_to=asked.message)
        finally:
            self._state.object_store.delete(name)
        if not isinstance(message, Message) or message.metadata.src_node_id != asked.node:
            return Message(Error(code=0, reason="its answer is another site's"), reply_to=asked.message)
        return message

    def set_run(self, run: Any) -> None:
        """Raise NotImplementedError: a hub has one run."""
        raise NotImplementedError

    @property
    def run(self) -> Any:
        """Flower's record of the run."""
        return self._state.get_run_info(run_ids=[self._run])[0]

    def create_message(self, *args: Any, **options: Any) -> Message:
        """Raise NotImplementedError: the method is deprecated in Flower."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Return the connected nodes."""
        return self._state.get_nodes(self._run)

    def get_nodes(self) -> Iterable[Any]:
        """Raise NotImplementedError; use `connected`."""
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting for answers; return their ids."""
        return [self._send(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Raise NotImplementedError; use `send_and_receive`."""
        raise NotImplementedError


class HubTransport(GridTransport):
    """Transport over a hub."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, hub.nodes)
        self._hub = hub

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        """Send a request to sites and yield their replies."""
        names = {self._nodes[site]: site for site in sites}
        record, ttl = to_record(content), timeout and timeout + GRACE_S
        messages = [Message(record, node, kind, ttl=ttl) for node in names]
        for reply in self._hub.send_and_receive(messages, timeout=timeout):
            yield reply_of(names[reply.metadata.src_node_id], reply)

    def connected(self) -> Mapping[str, object]:
        """Return the connected sites, each with the number of times that it has connected."""
        return {name: self._hub.since(name) for name in self._hub.connected()}


def _whole_trees(store: Any) -> None:
    """Make the registration of an object tree atomic: else a concurrent deletion of another tree leaves gaps in it."""
    enter = store.preregister

    def preregister(run_id: int, object_tree: ObjectTree) -> list[str]:
        with store.lock_store:
            found: list[str] = enter(run_id, object_tree)
        return found

    store.preregister = preregister
