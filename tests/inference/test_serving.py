"""A model as a service: right answers, limits, nothing kept, and a page that a person can use."""

import base64
import io
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forked
import numpy as np
import patience
import pytest
from browser import needs_browser, opened
from PIL import Image

pytest.importorskip("fastapi.testclient", reason="needs FastAPI and httpx: pip install 'harmofl[serve]'")
import anyio
from fastapi import HTTPException, testclient

from harmofl.errors import ConfigError
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.prediction.predict import predict_files
from harmofl.inference.prediction.predictor import Options, Predictor
from harmofl.inference.serving.service import Limits, _Service, make_app, serve_app

PNG = {"content-type": "image/png"}


def client(folder: Path, limits: Limits | None = None, host: str = "127.0.0.1"):
    predictor = Predictor(TrainedModel.open(folder), Options())
    return testclient.TestClient(make_app(predictor, "a model", limits or Limits(), host), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "new.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (7, 9, 3), np.uint8)).resize((90, 70)).save(path)
    return path


def test_masks_are_those_of_predict(finished_run: Path, image: Path, tmp_path: Path) -> None:
    predict_files(TrainedModel.open(finished_run), [image], tmp_path, overlays=True)
    served = client(finished_run)
    mask = served.post("/predict/mask", content=image.read_bytes(), headers=PNG)
    assert mask.content == (tmp_path / "new.png").read_bytes() and mask.headers["content-type"] == "image/png"
    overlay = served.post("/predict/overlay", content=image.read_bytes(), headers=PNG)
    assert overlay.content == (tmp_path / "overlays" / "new.png").read_bytes()
    told = served.post("/predict", content=image.read_bytes(), headers=PNG).json()
    with Image.open(tmp_path / "new.png") as shown:
        share = float((np.asarray(shown) > 0).mean())
    pictures = served.post("/predict?pictures=true", content=image.read_bytes(), headers=PNG).json()
    assert told.items() < pictures.items()
    assert base64.b64decode(pictures["mask"]) == mask.content
    assert base64.b64decode(pictures["overlay"]) == overlay.content
    assert told["height"] == 70 and told["shares"]["nucleus"] == pytest.approx(share, abs=1e-5)


def test_classes_are_those_of_predict(classes: Path, image: Path, tmp_path: Path) -> None:
    predict_files(TrainedModel.open(classes), [image], tmp_path)
    header, row = (line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines())
    told = client(classes).post("/predict", content=image.read_bytes(), headers=PNG).json()
    assert told["predicted"] == row[2]
    assert told["probabilities"] == pytest.approx(dict(zip(header[3:], map(float, row[3:]), strict=True)), abs=1e-5)
    assert client(classes).post("/predict/mask", content=image.read_bytes(), headers=PNG).status_code == 404


def test_too_much_wrong_or_damaged_is_refused_in_one_line(finished_run: Path, image: Path) -> None:
    data = image.read_bytes()
    small_files, small_images = client(finished_run, Limits(megabytes=0.001)), client(finished_run, Limits(pixels=100))
    served = client(finished_run)
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    for answer, status, said in (
        (small_files.post("/predict", content=data, headers=PNG), 413, "at most 0.001 MB"),
        (small_images.post("/predict", content=data, headers=PNG), 413, "at most 100 pixels, got 6,300"),
        (served.post("/predict", content=bomb.getvalue(), headers=PNG), 413, "at most 50,000,000 pixels"),
        (served.post("/predict", content=data, headers={"content-type": "text/html"}), 415, "must be one of image/png"),
        (served.post("/predict", content=data), 415, "got none"),
        (served.post("/predict", content=data, headers={"content-type": "image/jpeg"}), 422, "image/jpeg, but cannot"),
        (served.post("/predict", content=data[:200], headers=PNG), 422, "cannot be read"),
        (served.post("/predict", content=b"", headers=PNG), 422, "cannot be read"),
    ):
        assert answer.status_code == status
        assert said in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def test_it_answers_to_names_of_this_machine_alone_and_guards_its_pages(finished_run: Path) -> None:
    served = client(finished_run)
    assert served.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client(finished_run, host="0.0.0.0").get("/", headers={"host": "hospital.example"}).status_code == 200
    start = served.get("/")
    assert "default-src 'none'" in start.headers["content-security-policy"]
    assert start.headers["x-content-type-options"] == "nosniff" and start.headers["cache-control"] == "no-store"
    described = served.get("/openapi.json").json()
    assert set(described["paths"]) == {"/model", "/predict", "/predict/mask", "/predict/overlay"}
    assert "image/tiff" in described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert served.get("/model").json()["classes"] == ["background", "nucleus"]


def test_a_crowd_is_sent_away_and_the_rest_is_answered(
    finished_run: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, crowded = Predictor.answers, threading.Event()

    def held(self: Predictor, *args: Any) -> Any:
        assert crowded.wait(patience.seconds(60))
        return answers(self, *args)

    monkeypatch.setattr(Predictor, "answers", held)
    with client(finished_run, Limits(waiting=2)) as served, ThreadPoolExecutor(8) as many:
        asked = [many.submit(served.post, "/predict", content=image.read_bytes(), headers=PNG) for _ in range(8)]
        patience.until(lambda: sum(one.done() for one in asked) == 5)  # one is looked at and two wait
        crowded.set()
        codes = [one.result().status_code for one in asked]
        assert (codes.count(200), codes.count(503)) == (3, 5)
        assert {one.result().headers.get("retry-after") for one in asked} == {None, "5"}
        assert served.post("/predict", content=image.read_bytes(), headers=PNG).status_code == 200


def test_an_image_that_does_not_arrive_is_given_up(finished_run: Path, image: Path) -> None:
    service = _Service(Predictor(TrainedModel.open(finished_run), Options()), Limits(seconds=0.05))

    async def slow() -> AsyncIterator[bytes]:
        for byte in image.read_bytes():
            yield bytes([byte])
            await anyio.sleep(0.06)

    with (  # where a browser is open, this thread has a loop already
        ThreadPoolExecutor(1) as in_a_thread,
        pytest.raises(HTTPException, match=r"408.*must arrive within 0.05 s"),
    ):
        in_a_thread.submit(anyio.run, service.answer, "image/png", slow(), lambda picture, found: None).result()
    assert service.arriving == service.waiting == 0


def test_who_hangs_up_or_is_slow_takes_nobody_s_place(url: str, image: Path, tmp_path: Path) -> None:
    address = ("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 2000\r\n\r\nab"
    stalled = [socket.create_connection(address) for _ in range(12)]
    for one in stalled:
        one.sendall(head)
    asked = urllib.request.Request(f"{url}predict", image.read_bytes(), PNG)
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 200
    for one in stalled:
        one.close()
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 200
    assert (tmp_path / "stderr").read_text() == ""


def test_an_address_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot be served on"):
        serve_app(None, "127.0.0.1", taken.getsockname()[1])


@pytest.fixture
def url(finished_run: Path, tmp_path: Path) -> Iterator[str]:
    """The command itself, once it listens; what it complains of goes to the file stderr."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    words = ["-m", "harmofl", "serve-model", finished_run, "--port", port]
    address, out, err = f"http://127.0.0.1:{port}/", tmp_path / "stdout", tmp_path / "stderr"
    with out.open("w") as said, err.open("w") as complaints:
        process = forked.start(*words, stdout=said, stderr=complaints)
        try:
            patience.until(lambda: "takes images" in out.read_text(), err.read_text)
            yield address
        finally:
            process.terminate()
            process.wait()


@needs_browser
def test_a_person_drops_images_and_sees_outlines(url: str, image: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with opened(url) as seen:
        seen.page.set_input_files("#files", [str(image), str(broken)])
        seen.until("document.querySelector('#status').textContent === '2 images done'")
        shown = seen.page.locator(".answer img")
        assert shown.count() == 1 and "outlines" in shown.get_attribute("alt")
        assert seen.page.evaluate("document.querySelector('.answer img').naturalWidth") > 0
        assert "cannot be read" in seen.page.locator(".answer.failed").inner_text()
        with seen.page.expect_download() as waited:
            seen.page.get_by_text("Download the mask").click()
        assert waited.value.suggested_filename == "new-mask.png"
        with Image.open(waited.value.path()) as mask:
            assert mask.size == (90, 70)
        seen.page.evaluate(
            """() => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array([1, 2])], 'dropped.txt'));
            document.querySelector('.drop').dispatchEvent(new DragEvent('drop', { dataTransfer: data })); }"""
        )
        seen.until("document.querySelectorAll('.answer').length === 3")
        seen.until("document.querySelector('#status').textContent === '1 image done'")
        assert "content type must be" in seen.page.locator(".answer").first.inner_text()
        seen.shoot("serve-model", tmp_path)
        refused = [line for line in seen.complaints if "status of 4" not in line]
        assert refused == [] and all(request.startswith((url, "blob:")) for request in seen.requests)
        assert seen.overflow <= 0


@needs_browser
def test_the_description_is_drawn_without_a_network(url: str, tmp_path: Path) -> None:
    with opened(f"{url}docs") as seen:
        seen.page.locator(".opblock").first.wait_for()
        assert seen.count(".opblock") == 4
        assert all(request.startswith((url, "data:", "blob:")) for request in seen.requests)
        seen.shoot("serve-model-docs", tmp_path)
