"""Contact sheet of a federation: a row of training images, or of planes of training volumes, for every site."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from harmofl.data.site import Federation, Site
from harmofl.data.volume_planes import place_of_planes, three_planes
from harmofl.data.volume_split import VolumeSplit
from harmofl.report.png_images import outlined, to_bytes
from harmofl.report.svg import saved
from harmofl.utils.atomic_files import write_atomic
from harmofl.utils.grouping import evenly

COLUMNS = 8
_SIDE = 128  # pixels
_VOLUMES, _VOLUME_SIDE = 4, 256  # a sheet of three planes is as large as four images


def write_sheet(federation: Federation, path: Path) -> None:
    """Write a PNG with some training images of every site, or three planes of volumes, masks outlined, classes named.

    Args:
        federation: the federation to show.
        path: the file to write.

    Raises:
        StorageError: if the file cannot be written.
    """
    sites = federation.sites
    columns = _VOLUMES if federation.info.volumes else COLUMNS
    height = 1.62 * len(sites) * COLUMNS / columns
    figure = Figure(figsize=(1.4 * COLUMNS + 0.6, height), dpi=100, layout="constrained")
    axes = figure.subplots(len(sites), columns, squeeze=False)
    for site, row in zip(sites, axes, strict=True):
        row[0].set_ylabel(site.name.replace("$", r"\$"), fontsize=8)
        for axis, (picture, caption) in zip(row, _pictures(site), strict=False):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axis.set_title(caption.replace("$", r"\$"), fontsize=7)
        for axis in row:
            axis.set(xticks=[], yticks=[], frame_on=False)
    write_atomic(path, saved(figure, "png"))


def _pictures(site: Site) -> list[tuple[np.ndarray, str]]:
    """Return evenly spaced images of the training split (test split if empty) as bytes, with captions."""
    split = site.train if len(site.train) else site.test
    index = evenly(range(len(split)), _VOLUMES if isinstance(split, VolumeSplit) else COLUMNS)
    if isinstance(split, VolumeSplit):
        return [_planes(split, k) for k in index]
    batch = split.batch(index)
    images, targets = batch.images.numpy(), batch.targets.numpy()
    if site.task == "classification":
        return [(to_bytes(x, _SIDE), site.classes[y]) for x, y in zip(images, targets, strict=True)]
    return [(outlined(x, y, _SIDE), "") for x, y in zip(images, targets, strict=True)]


def _planes(split: VolumeSplit, k: int) -> tuple[np.ndarray, str]:
    """Return three planes of a volume as bytes, and its case as the caption."""
    place = place_of_planes(split.targets[k])
    volume, labels = (three_planes(one[k], place, split.spacing) for one in (split.images, split.targets))
    return outlined(volume[None].astype(np.float32), labels, _VOLUME_SIDE), split.cases[k]
