"""The server's end of the line: Flower's Fleet API on one port, and a grid to the sites that are connected.

Of Flower's SuperLink only what sites need is there: no Control API, nothing that could start a run or send code.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PushMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
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

from harmofl.errors import ConfigError

log = logging.getLogger("harmofl")
_LOOK, _BEAT = 0.05, 10.0
"""Seconds between looks for answers, and between signs of life that Flower wants of its own run."""


@dataclass
class _Asked:
    """A message that waits for its answer.

    Args:
        message: as it was sent.
        since: when its site was last connected anew before that.
        head: of the answer, once it is there.
        contents: the objects of the answer that have come so far.
    """

    message: Message
    since: str | None
    head: Message | None = None
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def node(self) -> int:
        """Whom it was sent to."""
        return int(self.message.metadata.dst_node_id)


@dataclass(frozen=True)
class Certificate:
    """Files of the server's TLS certificate and its private key, PEM."""

    certificate: Path
    key: Path


class Hub(Grid):
    """Listens for sites, and carries messages to those that are connected.

    Args:
        host: which address to listen at.
        port: which port; 0 any that is free, see `port`.
        keys: the public key of each site that may connect, as Flower writes it (PEM), by the site's name.
        certificate: for TLS; None listens in the clear, for where something before it does TLS.

    Attributes:
        nodes: the Flower node of each site, by name.
        port: where it listens.
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
        self._run = self._state.create_run(
            "harmofl/harmofl", "0", None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task = self._state.get_run_info(run_ids=[self._run])[0].primary_task_id
        assert task is not None
        self._task = task
        self._state.claim_task(task)
        self._state.activate_task(task)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = self._run, SUPERLINK_NODE_ID, task
        self._closed = threading.Event()
        self._listen(host, port, certificate)
        threading.Thread(target=self._live, daemon=True).start()

    def _listen(self, host: str, port: int, certificate: Certificate | None) -> None:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{host}:{port}: cannot listen there ({reason}); free the port or set another") from None
        self.port = self._socket.getsockname()[1]
        tls: dict[str, Any] = {}
        if certificate:
            tls = {"ssl_certfile": str(certificate.certificate), "ssl_keyfile": str(certificate.key)}
        try:
            config = uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off", **tls)
            config.load()
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"certificate and key must be PEM files that belong together, but {error}") from None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def _app(self) -> FastAPI:
        middleware = [
            Middleware(BaseHTTPMiddleware, dispatch=_telling),
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

    async def _authenticated(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """A site answers for itself alone, whatever its message says; one that comes back takes its own place."""
        sent = getattr(request.state, "protobuf_request", None)
        if isinstance(sent, PushMessagesRequest) and any(
            message.metadata.src_node_id != sent.node.node_id for message in sent.messages_list
        ):
            return Response(status_code=403)
        if isinstance(sent, ActivateNodeRequest):
            node = self._state.get_node_id_by_public_key(sent.public_key)
            if node is not None:  # a process that was killed could not say that it goes
                self._state.deactivate_node(node)
        return await call_next(request)

    def _live(self) -> None:
        while not self._closed.wait(_BEAT):
            self._state.acknowledge_task_heartbeat(self._task)

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up on everybody."""
        self._closed.set()
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()

    def connected(self) -> set[str]:
        """The names of the sites that are there: connected, and heard of lately."""
        there = self._state.get_nodes(self._run)
        return {name for name, node in self.nodes.items() if node in there}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send them, and yield the answers as they come, until all are there or the time is over.

        A site that went away and came back before it answered is asked once more.
        """
        end = None if timeout is None else time.monotonic() + timeout
        waiting: dict[str, _Asked] = {}
        for message in messages:
            self._ask(message, waiting)
        try:
            while waiting and (end is None or time.monotonic() < end):
                for name in self._answered(waiting):
                    asked = waiting.pop(name)
                    self._state.delete_messages({name})
                    yield self._whole(asked)
                for name in [name for name, asked in waiting.items() if self._since(asked.node) != asked.since]:
                    self._state.delete_messages({name})
                    self._ask(waiting.pop(name).message, waiting)
                time.sleep(_LOOK)
        finally:
            self._state.delete_messages(set(waiting))

    def _ask(self, message: Message, waiting: dict[str, _Asked]) -> None:
        about = message.metadata
        fresh = Message(message.content, about.dst_node_id, about.message_type, ttl=about.ttl, group_id=about.group_id)
        since = self._since(about.dst_node_id)
        waiting[self._send(fresh)] = _Asked(fresh, since)

    def since(self, site: str) -> str | None:
        """When a site was last connected anew, as text."""
        return self._since(self.nodes[site])

    def _since(self, node: int) -> str | None:
        since: str | None = self._state.get_node_info(node_ids=[node])[0].last_activated_at
        return since

    def _answered(self, waiting: Mapping[str, _Asked]) -> list[str]:
        """Which messages have an answer, complete or an error; the rest of an answer follows its head."""
        open_ = {name for name, asked in waiting.items() if asked.head is None}
        for head in self._state.get_message_res(message_ids=open_, run_id=self._run) if open_ else ():
            waiting[head.metadata.reply_to_message_id].head = head
        return [name for name, asked in waiting.items() if asked.head is not None and self._complete(asked)]

    def _send(self, message: Message) -> str:
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            objects, tree = get_all_nested_objects(message), get_object_tree(message)
            session = self._state.start_session(self._run)
            head = remove_content_from_message(message)
            _, missing = self._state.store_message_and_object_tree(head, tree, session)
            for name in missing:
                self._state.store_object(self._run, session, name, objects[name].deflate())
        return str(message.metadata.message_id)

    def _complete(self, asked: _Asked) -> bool:
        """Whether all that belongs to the answer is there, or never will be."""
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
        """The answer with all that was sent after its head; an error where that is no message."""
        head = asked.head
        assert head is not None
        if head.has_error():
            return Message(Error(head.error.code, head.error.reason), reply_to=asked.message)
        name = head.metadata.message_id
        try:
            message = inflate_object_from_contents(name, asked.contents)
        except Exception as error:  # whatever bytes a site may send
            reason = f"its answer cannot be read ({' '.join(str(error).split())[:200]})"
            return Message(Error(code=0, reason=reason), reply_to=asked.message)
        finally:
            self._state.object_store.delete(name)
        if not isinstance(message, Message) or message.metadata.src_node_id != asked.node:
            return Message(Error(code=0, reason="its answer is another site's"), reply_to=asked.message)
        return message

    def set_run(self, run: Any) -> None:
        """Not of use here: a hub has one run."""
        raise NotImplementedError

    @property
    def run(self) -> Any:
        """Flower's record of the run."""
        return self._state.get_run_info(run_ids=[self._run])[0]

    def create_message(self, *args: Any, **options: Any) -> Message:
        """Deprecated in Flower."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are connected."""
        return self._state.get_nodes(self._run)

    def get_nodes(self) -> Iterable[Any]:
        """Not of use here, see `connected`."""
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send without waiting."""
        return [self._send(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not of use here, see `send_and_receive`."""
        raise NotImplementedError


async def _telling(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Say in one line who was turned away."""
    response = await call_next(request)
    if response.status_code >= 400:
        host = request.client.host if request.client else "?"
        why = "unknown key or bad signature" if response.status_code == 401 else f"status {response.status_code}"
        if request.url.path.endswith("/activate-node"):
            why = "no site of this federation has its key"
        log.warning("%s: refused at %s: %s", host, request.url.path, why)
    return response
