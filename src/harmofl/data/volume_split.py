"""One split of a site's preprocessed volumes, from which patches are drawn."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harmofl.data.split import Split, names_of
from harmofl.data.volume_settings import Spacing
from harmofl.federated.batch import Batch
from harmofl.utils.mapped_files import is_mapped

FOREGROUND = 0.5
"""Share of the training patches that are drawn around a voxel of a structure."""
_Slices = tuple[slice, ...]


def views(flat: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the volumes of these shapes, (N, 3), that lie one after the other in a flat array, without copying."""
    parts = np.split(flat, np.cumsum(shapes.prod(axis=1))[:-1]) if len(shapes) else []
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes.tolist(), strict=True))


@dataclass(frozen=True)
class VolumeSplit(Split):
    """A split of volumes of different shapes.

    Args:
        images: (D, H, W) float16 of each volume, in [0, 1]; may be memory-mapped, of which patches alone are copied.
        targets: (D, H, W) uint8 label map of each volume; may be memory-mapped.
        cases: see `Split`, as `patients` and `parts`; the latter counts training items.
        patch_size: voxels (D, H, W) of a patch.
        per_volume: patches of each volume in an epoch.
        spacing: millimetres between the voxels along (D, H, W).
    """

    images: tuple[np.ndarray, ...]  # type: ignore[assignment]  # of several shapes, so not one array
    targets: tuple[np.ndarray, ...]  # type: ignore[assignment]
    patch_size: tuple[int, int, int] = (96, 96, 96)
    per_volume: int = 1
    spacing: Spacing = (1.0, 1.0, 1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one patch of a batch, (1, D, H, W)."""
        return (1, *self.patch_size)

    @property
    def bits(self) -> int:
        """The bits of a preprocessed voxel."""
        return 16

    @property
    def bytes_held(self) -> int:
        """The bytes of volumes and label maps in memory, without those that are mapped from a cache."""
        return sum(a.nbytes for a in self.pieces() if not is_mapped(a))

    @property
    def items(self) -> int:
        """The number of training items of an epoch: `per_volume` patches of each volume."""
        return len(self) * self.per_volume

    @property
    def padding(self) -> float:
        """The mean share of padding in a patch, from 0 to 1, of volumes smaller than the patch."""
        size = np.array(self.patch_size)
        shares = [np.minimum(volume.shape, size).prod() / size.prod() for volume in self.images]
        return 1 - float(np.mean(shares)) if shares else 0.0

    def first(self, count: int) -> "VolumeSplit":
        """Return the first `count` volumes, or all if there are fewer."""
        named = {name: getattr(self, name)[:count] for name in ("images", "targets", "cases", "patients")}
        return replace(self, **named, parts=())

    def joined(self, splits: Sequence[Split]) -> "VolumeSplit":
        """Return the volumes of several splits, one split after the other."""
        images, targets = (tuple(v for s in splits for v in getattr(s, name)) for name in ("images", "targets"))
        cases, patients = names_of(splits)
        parts = tuple(split.items for split in splits)
        return replace(self, images=images, targets=targets, cases=cases, patients=patients, parts=parts)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all volumes and then all label maps."""
        return itertools.chain(self.images, self.targets)

    def showing(self, k: int) -> int:
        """Return the number of volumes with class `k`."""
        return sum(bool((target == k).any()) for target in self.targets)

    def batch(self, index: Sequence[int] | np.ndarray) -> Batch:
        """Return the patch in the middle of each volume at `index`, which depends on nothing else.

        Returns:
            (B, 1, D, H, W) float32 images in [0, 1] with (B, D, H, W) int64 targets, on the CPU.
        """
        return self._patches([(k, place_of(_middle(self.images[k]), self.images[k], self.patch_size)) for k in index])

    def training_batch(self, index: Sequence[int] | np.ndarray, random: np.random.Generator) -> Batch:
        """Return a random patch for each item at `index`; item i is of volume i // `per_volume`.

        A share of `FOREGROUND` of the patches is centred at a voxel of a structure, as by MONAI's RandCropByPosNegLabel
        with pos = neg, and the others at any voxel; each is then moved into the volume.
        """
        volumes = [int(item) // self.per_volume for item in index]
        return self._patches([(k, place_of(self._centre(k, random), self.images[k], self.patch_size)) for k in volumes])

    def _centre(self, k: int, random: np.random.Generator) -> np.ndarray:
        shape = self.images[k].shape
        inside = np.flatnonzero(self.targets[k]) if random.random() < FOREGROUND else np.empty(0, np.int64)
        flat = inside[random.integers(len(inside))] if len(inside) else random.integers(np.prod(shape))
        return np.array(np.unravel_index(flat, shape))

    def _patches(self, places: Sequence[tuple[int, _Slices]]) -> Batch:
        """Copy patches of volumes; a volume smaller than the patch is padded with 0 on both sides."""
        import torch

        images = np.stack([_padded(self.images[k][place], self.patch_size) for k, place in places])
        targets = np.stack([_padded(self.targets[k][place], self.patch_size) for k, place in places])
        return Batch(torch.from_numpy(images.astype(np.float32))[:, None], torch.from_numpy(targets.astype(np.int64)))


def middle_patch(volume: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Return the patch in the middle of a volume (D, H, W), (1, 1, D, H, W) float32, as `VolumeSplit.batch` does."""
    patch = _padded(volume[place_of(_middle(volume), volume, size)], size)
    return np.asarray(patch[None, None], np.float32)


def place_of(centre: np.ndarray, volume: np.ndarray, size: tuple[int, int, int]) -> _Slices:
    """Return the place of a patch around a centre, moved into the volume and cut to it."""
    shape = np.array(volume.shape)
    start = np.clip(centre - np.array(size) // 2, 0, np.maximum(shape - size, 0))
    return tuple(slice(int(a), int(b)) for a, b in zip(start, np.minimum(start + size, shape), strict=True))


def _middle(volume: np.ndarray) -> np.ndarray:
    return np.array(volume.shape) // 2


def _padded(patch: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    missing = [wanted - there for wanted, there in zip(size, patch.shape, strict=True)]
    return np.pad(patch, [(gap // 2, gap - gap // 2) for gap in missing])
