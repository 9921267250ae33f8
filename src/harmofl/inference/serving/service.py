"""HTTP service: a page for people, endpoints for programs, and their description."""

import base64
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from harmofl.errors import ConfigError, DataError
from harmofl.inference.prediction.image_reader import Picture
from harmofl.inference.prediction.predictor import Predictor
from harmofl.inference.prediction.writing import mask_png, overlay
from harmofl.inference.serving.request_images import FORMATS, TooLargeError, decode
from harmofl.report.png_images import png
from harmofl.report.templates import template_of
from harmofl.report.vega import allowed

try:
    import anyio
    import uvicorn
    from fastapi import FastAPI, HTTPException, Query, Request
    from fastapi.openapi.docs import get_swagger_ui_html
    from fastapi.responses import HTMLResponse, Response
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect
    from starlette.staticfiles import StaticFiles
    from swagger_ui_bundle import swagger_ui_path
except ImportError as error:
    raise ConfigError(f"a service needs packages, but {error}; pip install 'harmofl[serve]'") from None

LOCAL = ("127.0.0.1", "localhost", "::1")
_BODY = {"required": True, "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The image did not arrive in time."},
    413: {"description": "The image has too many bytes or pixels."},
    415: {"description": "The content type is not supported."},
    422: {"description": "The image cannot be read, or does not fit the model's channels."},
    503: {"description": "Too many images are waiting."},
}
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "A PNG file."}}
_TAKES_IMAGE: dict[str, Any] = {"openapi_extra": {"requestBody": _BODY}, "responses": _ERRORS}
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


@dataclass(frozen=True)
class Limits:
    """Limits of requests."""

    megabytes: float = 20  # of an image file
    pixels: int = 50_000_000  # of an image
    waiting: int = 8  # images that may wait while one is predicted
    arriving: int = 64  # images that may be in transfer at once
    seconds: float = 60  # within which an image must arrive


def make_app(predictor: Predictor, title: str, limits: Limits, host: str = "127.0.0.1") -> Any:
    """Return the service as an ASGI application, which writes nothing to the disk.

    It answers only requests to names of this machine if `host`, the address it will be bound to, is a local one.
    """
    app = FastAPI(
        title=title, version="1", docs_url=None, redoc_url=None, description="A trained model. Images are not stored."
    )
    app.openapi_version = "3.0.2"  # the newest version that the bundled page reads
    _add_pages(app, predictor, title, limits)
    _add_predictions(app, predictor, limits)

    @app.middleware("http")
    async def guarded(request: Request, then: Callable[[Any], Awaitable[Response]]) -> Response:
        found = await then(request)
        found.headers.update(_HEADERS | {"Cache-Control": "no-store"})
        # the page of the description has an inline script; nothing is loaded from other hosts
        found.headers.setdefault("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; img-src 'self' data:")
        return found

    if host in LOCAL:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, "[::1]"])
    return app


def _add_pages(app: FastAPI, predictor: Predictor, title: str, limits: Limits) -> None:
    """Add the page for people, the page of the description, and the model's card."""
    page, policy = _page(predictor, title, limits)

    @app.get("/", include_in_schema=False)
    def start() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        shown: HTMLResponse = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=title,
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="data:,",
        )
        return shown

    app.mount("/swagger", StaticFiles(directory=Path(swagger_ui_path)), name="swagger")

    @app.get("/model", summary="Description of the model, and the statistics in use")
    def model() -> dict[str, Any]:
        about = predictor.trained.card
        shown = {key: about[key] for key in ("task", "classes", "channels", "size", "sites")}
        return {**shown, "used": predictor.said()}


def _add_predictions(app: FastAPI, predictor: Predictor, limits: Limits) -> None:
    """Add the endpoints that take an image."""
    service, classes = _Service(predictor, limits), predictor.trained.card["classes"]
    drawings: dict[str, Callable[[Picture, np.ndarray], bytes]] = {
        "mask": lambda picture, found: mask_png(found[0], classes),
        "overlay": lambda picture, found: png(overlay(picture, found)),
    }

    async def answer(request: Request, made: Callable[[Picture, np.ndarray], Any]) -> Any:
        return await service.answer(request.headers.get("content-type", ""), request.stream(), made)

    @app.post("/predict", summary="Class and probabilities, or the share of each class in the image", **_TAKES_IMAGE)
    async def predict(
        request: Request,
        pictures: bool = Query(False, description="for segmentation, add mask and overlay as PNG in base64"),
    ) -> dict[str, Any]:
        drawn = drawings if pictures and predictor.segments else {}

        def made(picture: Picture, found: np.ndarray) -> dict[str, Any]:
            files = {name: base64.b64encode(draw(picture, found)).decode() for name, draw in drawn.items()}
            return _told(found[0], predictor) | files

        answered: dict[str, Any] = await answer(request, made)
        return answered

    def drawing(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def drawn(request: Request) -> Response:
            service.must_segment()
            return Response(await answer(request, drawings[name]), media_type="image/png")

        return drawn

    for name, summary in (("mask", "The mask; 0 and 255 for two classes"), ("overlay", "The image with outlines")):
        options = {**_TAKES_IMAGE, "responses": _ERRORS | _PNG, "name": name, "summary": summary}
        app.post(f"/predict/{name}", response_class=Response, **options)(drawing(name))


def serve_app(app: Any, host: str, port: int) -> None:
    """Serve an application until Ctrl-C; raise ConfigError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: cannot be served on ({error.strerror or error}); choose another --host or --port"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/ takes images, /docs describes the API; press Ctrl-C to stop", flush=True)
    with bound:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
        server.run(sockets=[bound])


class _Service:
    """Queue that predicts one image at a time while a few wait."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.waiting = self.arriving = 0
        self.one = anyio.CapacityLimiter(1)

    def must_segment(self) -> None:
        if not self.predictor.segments:
            raise HTTPException(404, "masks need a segmentation model, got one for classification; use /predict")

    async def answer(self, kind: str, stream: Any, made: Callable[[Picture, np.ndarray], Any]) -> Any:
        """Predict the image in a stream in a thread, and return the result of `made` for image and prediction."""
        kind = kind.partition(";")[0].strip().lower()
        if kind not in FORMATS:
            raise HTTPException(415, f"the content type must be one of {', '.join(FORMATS)}, got {kind or 'none'}")
        self._must_have_room()
        data = await self._body(stream)
        self._must_have_room()
        self.waiting += 1
        try:
            return await anyio.to_thread.run_sync(self._look, data, kind, made, limiter=self.one)
        except TooLargeError as error:
            raise HTTPException(413, str(error)) from None
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        finally:
            self.waiting -= 1

    def _must_have_room(self) -> None:
        """Raise HTTP 503 if too many images wait beside the one being predicted, or are in transfer."""
        if self.waiting > self.limits.waiting or self.arriving >= self.limits.arriving:
            raise HTTPException(503, "too many images are waiting; try again later", {"Retry-After": "5"})

    async def _body(self, stream: Any) -> bytes:
        """Return the whole body; an image in transfer takes no place in the queue."""
        data = bytearray()
        self.arriving += 1
        try:
            with anyio.fail_after(self.limits.seconds):
                async for part in stream:
                    data += part
                    if len(data) > self.limits.megabytes * 1e6:
                        most = f"{self.limits.megabytes:g} MB"
                        raise HTTPException(413, f"the image must have at most {most}; make it smaller")
        except TimeoutError:
            raise HTTPException(408, f"the image must arrive within {self.limits.seconds:g} s; send it again") from None
        except ClientDisconnect:
            raise HTTPException(400, "the image must arrive as a whole, but its sender closed the connection") from None
        finally:
            self.arriving -= 1
        return bytes(data)

    def _look(self, data: bytes, kind: str, made: Callable[[Picture, np.ndarray], Any]) -> Any:
        picture = decode(data, kind, self.limits.pixels)
        return made(picture, self.predictor.answers([self.predictor.prepared(picture)], [picture.shape])[0])


def _told(found: np.ndarray, predictor: Predictor) -> dict[str, Any]:
    classes = predictor.trained.card["classes"]
    if not predictor.segments:
        probabilities = {name: round(float(p), 6) for name, p in zip(classes, found, strict=True)}
        return {"predicted": classes[int(found.argmax())], "probabilities": probabilities}
    counts = np.bincount(found.ravel(), minlength=len(classes))
    shares = {name: round(float(n) / found.size, 6) for name, n in zip(classes, counts, strict=True)}
    return {"height": found.shape[0], "width": found.shape[1], "shares": shares}


def _page(predictor: Predictor, title: str, limits: Limits) -> tuple[str, str]:
    """Return the page for people and its content security policy."""
    script = Markup(files("harmofl.report").joinpath("model.js").read_text(encoding="utf-8"))
    about = predictor.trained.card
    text = template_of("model.html").render(
        title=title,
        task=about["task"].capitalize(),
        classes=about["classes"],
        megabytes=f"{limits.megabytes:g}",
        said=predictor.said() or ["nothing that depends on a site"],
        script=script,
    )
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; connect-src 'self'; "
        f"script-src {allowed(script)}; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    return text, policy
