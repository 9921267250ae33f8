"""Prediction for image files and folders, a few images at a time, with files as output."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from harmofl.data.image_differences import HeaderFacts, unlike
from harmofl.data.parallel import in_order, workers_for_files
from harmofl.errors import ConfigError, DataError
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.prediction.image_reader import Picture, read_prepared
from harmofl.inference.prediction.inputs import Input, find, keeps_suffix, passed_over
from harmofl.inference.prediction.predictor import Options, Predictor
from harmofl.inference.prediction.writing import TABLE, mask_path, overlay_path, write_mask, write_overlay, write_table
from harmofl.types import Progress, Tell
from harmofl.utils.atomic_files import check_writable, storing
from harmofl.utils.lazy_imports import optional


@dataclass(frozen=True)
class Done:
    """Result of a prediction."""

    written: tuple[Path, ...]  # the files
    failed: tuple[str, ...]  # one line for each image that failed
    said: tuple[str, ...]  # the amplitude, statistics and weights in use, in plain words
    images: int  # number of photographs and slices predicted
    seconds: float  # time of reading, predicting and writing


def predict_files(
    trained: TrainedModel,
    paths: Sequence[Path],
    out: Path,
    options: Options | None = None,
    *,
    overlays: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    told: Tell = lambda line: None,
) -> Done:
    """Write the model's predictions for images.

    Args:
        trained: the model.
        paths: image files, and folders, which are searched recursively.
        out: the folder to write into: one mask per image, named as the image is below the given folder, or
            predictions.csv with class probabilities.
        options: options of the prediction; None takes the defaults of `Options`.
        overlays: also write images with outlines; only for masks.
        overwrite: replace existing files.
        progress: called with the current image, the number of images done and the total.
        told: called with a description of the images found, before any is decoded.

    Raises:
        DataError: before anything is written, if there is no image at a path. An image that cannot be read raises
            no error but adds a line to `Done.failed`.
        ConfigError: if the options do not fit, or a file exists already.
        StorageError: if a file cannot be written.
    """
    begin = time.perf_counter()
    predictor = Predictor(trained, options or Options())
    inputs = find(paths, out)
    told(_found(inputs, trained))
    _check_targets(predictor, inputs, out, overlays=overlays, overwrite=overwrite)
    if predictor.needs_images:
        with storing(out):
            out.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".predict-", dir=out) as folder:
                predictor.settle(_readable(inputs, predictor), Path(folder))
    work = _Work(predictor, out, overlays)
    for done, chunk, pictures, images in in_order(work.prepare, _chunks(inputs, predictor.options.batch_size)):
        if progress:
            progress(chunk[0].name, done, len(inputs))
        found = predictor.predicted(list(pictures.values()), list(images.values()))
        work.store(pictures, found)
    written = work.end()
    said = [*predictor.said(), *work.said()]
    if alike := [one for one in inputs if keeps_suffix(one)]:
        said.append(f"{len(alike)} images share a name with others; their output keeps the suffix: {alike[0].name}")
    said += passed_over(paths, inputs, out)
    return Done(tuple(written), tuple(work.failed), tuple(said), work.count, time.perf_counter() - begin)


def _check_targets(
    predictor: Predictor, inputs: Sequence[Input], out: Path, *, overlays: bool, overwrite: bool
) -> None:
    """Raise ConfigError or StorageError unless the files of a prediction can be written; arguments as above."""
    targets = [path for one in inputs for path in _targets(predictor, one, out, overlays)]
    if predictor.segments and (twice := [path for path, n in Counter(targets).items() if n > 1]):
        raise ConfigError(
            f"{twice[0]}: would be written twice; predict the images in folders called overlays separately"
        )
    if any(one.kind == "series" for one in inputs) and predictor.segments:
        optional("highdicom", "DICOM SEG", "dicom")
    given = {file.resolve() for one in inputs for file in one.files}
    if mine := next((path for path in targets if path.resolve() in given), None):
        raise ConfigError(f"{mine}: is an input image and would be overwritten; choose another --out")
    check_writable(out)
    if (there := next((path for path in targets if path.exists()), None)) and not overwrite:
        raise ConfigError(f"{there}: must not exist yet; choose another --out, or give --overwrite")


def _found(inputs: Sequence[Input], trained: TrainedModel) -> str:
    """Return one line on the model's task and classes and the number of images."""
    counts = Counter(one.kind for one in inputs)
    named = {"photograph": "image", "volume": "volume", "series": "DICOM series"}
    kinds = [f"{n} {named[kind]}{'s' * (n > 1 and kind != 'series')}" for kind, n in counts.items()]
    classes = ", ".join(trained.card["classes"])
    return f"{trained.card['task']}, {len(trained.card['classes'])} classes ({classes}), {' and '.join(kinds)}"


class _Work:
    """Threads that read ahead and write in the background while the model predicts."""

    def __init__(self, predictor: Predictor, out: Path, overlays: bool) -> None:
        self.predictor, self.out, self.overlays = predictor, out, overlays
        self.failed: list[str] = []
        self.count = 0
        self._like: Counter[str] = Counter()
        self._classes: Sequence[str] = predictor.trained.card["classes"]
        self._answers: dict[str, np.ndarray] = {}
        self._pool = ThreadPoolExecutor(workers_for_files())
        self._waiting: deque[Future[list[Path]]] = deque()
        self._written: list[Path] = []

    def prepare(
        self, numbered: tuple[int, list[Input]]
    ) -> tuple[int, list[Input], dict[Input, Picture], dict[Input, np.ndarray]]:
        """Return the readable ones of some images, decoded and in the network's format."""
        done, chunk = numbered
        pictures: dict[Input, Picture] = {}
        images: dict[Input, np.ndarray] = {}
        for one in chunk:
            with self._telling(one):
                picture = read_prepared(one, self.predictor.levels, self.predictor.volumes)
                images[one] = self.predictor.prepared(picture)
                pictures[one] = picture
        return done, chunk, pictures, images

    def store(self, pictures: Mapping[Input, Picture], found: Sequence[np.ndarray]) -> None:
        """Write masks in the background; keep classes for the table."""
        for (one, picture), answer in zip(pictures.items(), found, strict=True):
            self.count += len(answer)
            self._like.update({unlike: len(answer) for unlike in _unlike(picture, self.predictor)})
            if self.predictor.segments:
                self._waiting.append(self._pool.submit(self._write, one, picture, answer))
            else:
                self._answers[one.name] = answer
        while len(self._waiting) > self.predictor.options.batch_size:
            self._written += self._waiting.popleft().result()

    def _write(self, one: Input, picture: Picture, answer: np.ndarray) -> list[Path]:
        written: list[Path] = []
        with self._telling(one):
            write_mask(one, picture, answer, self._classes, self.out)
            if self.overlays:
                write_overlay(one, picture, answer, self.out)
            written = _targets(self.predictor, one, self.out, self.overlays)
        return written

    def end(self) -> list[Path]:
        """Wait for the files that are still being written; return all files."""
        with self._pool:
            for one in self._waiting:
                self._written += one.result()
        if self._answers:
            write_table(self._answers, self._classes, self.out)
            self._written.append(self.out / TABLE)
        return self._written

    def said(self) -> list[str]:
        """Return how images differed from those of training, in plain words."""
        return [f"{number} of {self.count} {unlike}" for unlike, number in self._like.items()]

    @contextmanager
    def _telling(self, one: Input) -> Iterator[None]:
        """Record a DataError of one image within the context, so that the others go on."""
        try:
            yield
        except DataError as error:
            self.failed.append(f"{one.files[0]}: {error}")


def _unlike(picture: Picture, predictor: Predictor) -> Iterator[str]:
    """Yield how an image differs from those of training, and what is done about it."""
    deep, grey = picture.planes.dtype != np.uint8, picture.volume or len(picture.planes) == 1
    seen = HeaderFacts(picture.shape, picture.volume, not grey, 16 if deep else 8)
    tiles = "; if training used tiles of larger images, --tiles keeps the resolution"
    resized = not predictor.options.tiles
    return unlike(seen, predictor.trained.card, resized=resized, hint=tiles * predictor.segments)


def _chunks(inputs: Sequence[Input], size: int) -> Iterator[tuple[int, list[Input]]]:
    """Yield photographs in batches and each volume alone, with the number of images before."""
    chunk: list[Input] = []
    for done, one in enumerate(inputs):
        if chunk and (one.kind != "photograph" or chunk[0].kind != "photograph" or len(chunk) == size):
            yield done - len(chunk), chunk
            chunk = []
        chunk.append(one)
    if chunk:
        yield len(inputs) - len(chunk), chunk


def _readable(inputs: Sequence[Input], predictor: Predictor) -> Iterator[np.ndarray]:
    """Yield the readable images in the network's format; the others are reported when they are predicted."""
    found = False
    for one in inputs:
        try:
            image = predictor.prepared(read_prepared(one, predictor.levels, predictor.volumes))
        except DataError:
            continue
        found = True
        yield image
    if not found:
        raise DataError(f"{inputs[0].files[0]}: cannot be read, nor any other image; statistics need at least one")


def _targets(predictor: Predictor, one: Input, out: Path, overlays: bool) -> list[Path]:
    if not predictor.segments:
        return [out / TABLE]
    return [mask_path(one, out), *([overlay_path(one, out)] if overlays else [])]
