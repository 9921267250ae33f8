"""From what a person points at to files, one image at a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmofl.errors import ConfigError, DataError
from harmofl.prediction.inputs import Input, find
from harmofl.prediction.predictor import Options, Predictor
from harmofl.prediction.reading import Picture, read
from harmofl.prediction.writing import TABLE, mask_path, overlay_path, write_mask, write_overlay, write_table
from harmofl.trained import TrainedModel

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Done:
    """What came of it.

    Args:
        written: the files.
        failed: what went wrong, in one line an image.
        said: which amplitude, statistics and weights were used, in plain words.
        images: photographs and slices that were answered for.
        seconds: reading, answering and writing.
    """

    written: tuple[Path, ...]
    failed: tuple[str, ...]
    said: tuple[str, ...]
    images: int
    seconds: float


def predict(
    trained: TrainedModel,
    paths: Sequence[Path],
    out: Path,
    options: Options | None = None,
    *,
    overlays: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Done:
    """Write the model's answers for images.

    Args:
        trained: the model.
        paths: image files, and folders, which are searched through.
        out: the folder to write into: a mask an image, of the name it has below the folder that was given, or
            predictions.csv with class probabilities.
        options: how; as `Options` has it if not given.
        overlays: write pictures with outlines, too; masks only.
        overwrite: replace what is there.
        progress: told which image is at hand, how many are done and how many there are.

    Raises:
        DataError: before anything is written, if there is no image at a path. An image that cannot be read is no
            error but a line in `Done.failed`.
        ConfigError: if the options do not fit, or something is there already.
        StorageError: if something cannot be written.
    """
    begin = time.perf_counter()
    predictor = Predictor(trained, options or Options())
    inputs = find(paths)
    targets = [path for one in inputs for path in _targets(predictor, one, out, overlays)]
    if (there := next((path for path in targets if path.exists()), None)) and not overwrite:
        raise ConfigError(f"{there}: must not be there yet; choose another --out, or --overwrite")
    failed: list[str] = []
    answers: dict[str, np.ndarray] = {}
    count = 0
    if predictor.needs_images:
        predictor.settle(_readable(inputs))
    for chunk in _chunks(inputs, predictor.options.batch_size):
        if progress:
            progress(chunk[0].name, inputs.index(chunk[0]), len(inputs))
        pictures, images = _prepared(predictor, chunk, failed)
        found = predictor.answers(list(images.values()), [picture.shape for picture in pictures.values()])
        for (one, picture), answer in zip(pictures.items(), found, strict=True):
            count += len(answer)
            if not predictor.segments:
                answers[one.name] = answer
                continue
            with _telling(one, failed):
                write_mask(one, picture, answer, trained.card["classes"], out)
                if overlays:
                    write_overlay(one, picture, answer, out)
    if not predictor.segments and answers:
        write_table(answers, trained.card["classes"], out)
    written = tuple(path for path in dict.fromkeys(targets) if path.exists())
    return Done(written, tuple(failed), tuple(predictor.said()), count, time.perf_counter() - begin)


def _chunks(inputs: Sequence[Input], size: int) -> Iterator[list[Input]]:
    """Photographs in batches, volumes each alone."""
    chunk: list[Input] = []
    for one in inputs:
        if chunk and (one.kind != "photograph" or chunk[0].kind != "photograph" or len(chunk) == size):
            yield chunk
            chunk = []
        chunk.append(one)
    if chunk:
        yield chunk


@contextmanager
def _telling(one: Input, failed: list[str]) -> Iterator[None]:
    """One image that cannot be done is no reason to leave the others."""
    try:
        yield
    except DataError as error:
        failed.append(f"{one.files[0]}: {error}")


def _prepared(
    predictor: Predictor, chunk: Sequence[Input], failed: list[str]
) -> tuple[dict[Input, Picture], dict[Input, np.ndarray]]:
    pictures: dict[Input, Picture] = {}
    images: dict[Input, np.ndarray] = {}
    for one in chunk:
        with _telling(one, failed):
            picture = read(one)
            images[one] = predictor.prepared(picture)
            pictures[one] = picture
    return pictures, images


def _readable(inputs: Sequence[Input]) -> list[Picture]:
    """Those that can be read; the others are named when it is their turn."""
    found = []
    for one in inputs:
        with suppress(DataError):
            found.append(read(one))
    if not found:
        raise DataError(f"{inputs[0].files[0]}: no image can be read, so that there is nothing to estimate from")
    return found


def _targets(predictor: Predictor, one: Input, out: Path, overlays: bool) -> list[Path]:
    if not predictor.segments:
        return [out / TABLE]
    return [mask_path(one, out), *([overlay_path(one, out)] if overlays else [])]
