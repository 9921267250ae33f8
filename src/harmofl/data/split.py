"""One split of a site's decoded images, from which batches are made."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harmofl.data.joined import Joined
from harmofl.federated.batch import Batch
from harmofl.utils.mapped_files import is_mapped

_PIECE = 256
"""Number of images that are read at a time."""


@dataclass(frozen=True)
class Split:
    """One split of a site's data, decoded.

    Args:
        images: (N, C, H, W) uint8, where v stands for v/255, or float32 in [0, 1]; may be memory-mapped.
        targets: (N,) int64 class indices, or (N, H, W) uint8 label maps; may be memory-mapped.
        cases: the case of each of the N images, the unit of a segmentation score; slices of one volume share a case.
        patients: the patient of each of the N images; by default each case is a separate patient.
        parts: the number of consecutive images from each merged site; each training batch then comes from one site.
    """

    images: np.ndarray | Joined
    targets: np.ndarray | Joined
    cases: tuple[str, ...]
    patients: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.patients:
            object.__setattr__(self, "patients", self.cases)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image of a batch, (C, H, W)."""
        return self.images.shape[1:]

    @property
    def bits(self) -> int:
        """The bits of a decoded value, 8 or 16."""
        return 8 if self.images.dtype == np.uint8 else 16

    @property
    def bytes_held(self) -> int:
        """The bytes of images and targets in memory, without those that are mapped from a cache."""
        arrays = (self.images, self.targets)
        return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray) and not is_mapped(a))

    @property
    def items(self) -> int:
        """The number of training items of an epoch: the images."""
        return len(self)

    def first(self, count: int) -> "Split":
        """Return the first `count` images, or all if there are fewer."""
        count = min(count, len(self))
        rows = np.arange(count)
        return Split(self.images[rows], self.targets[rows], self.cases[:count], self.patients[:count])

    def joined(self, splits: Sequence["Split"]) -> "Split":
        """Return the images of several splits, one split after the other, without copying them."""
        images, targets = (Joined([getattr(split, name) for split in splits]) for name in ("images", "targets"))
        return Split(images, targets, *names_of(splits), tuple(map(len, splits)))

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all images and then all targets, in pieces that fit into memory."""
        for array in (self.images, self.targets):
            for start in range(0, len(array), _PIECE):
                yield array[start : start + _PIECE]

    def showing(self, k: int) -> int:
        """Return the number of images with class `k`."""
        hits = np.asarray(self.targets) == k
        return int(np.count_nonzero(hits.any(axis=tuple(range(1, hits.ndim)))))

    def mark(self) -> str:
        """Return a short checksum of the names of the cases."""
        return f"{zlib.crc32(chr(10).join(sorted(self.cases)).encode()):08x}"

    def batch(self, index: Sequence[int] | np.ndarray) -> Batch:
        """Copy the images at `index`, in that order, into a new batch.

        Args:
            index: positions in this split; repetitions are allowed.

        Returns:
            (B, C, H, W) float32 images in [0, 1] with int64 targets, on the CPU.
        """
        import torch

        rows = np.asarray(index, dtype=np.int64)
        images = np.array(self.images[rows], dtype=np.float32)
        if self.images.dtype == np.uint8:
            images /= np.float32(255)
        targets = np.array(self.targets[rows], dtype=np.int64)
        return Batch(torch.from_numpy(images), torch.from_numpy(targets))

    def training_batch(self, index: Sequence[int] | np.ndarray, random: np.random.Generator) -> Batch:
        """Return the batch of a training step, of the items at `index`; images of a split need no `random` numbers."""
        return self.batch(index)


def names_of(splits: Sequence[Split]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the cases and the patients of several splits, one split after the other."""
    cases = tuple(name for split in splits for name in split.cases)
    return cases, tuple(name for split in splits for name in split.patients)
