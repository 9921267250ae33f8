"""Volumes of a site: patches, their classes, their padding, the cache, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from folders_on_disk import save_volume
from volumes_on_disk import SPACING, needs_monai, scene, write_volumes

from harmofl.data import open_federation
from harmofl.data.site import merged, undivided
from harmofl.data.transforms import flip_volumes
from harmofl.data.volume_settings import VolumeSettings
from harmofl.data.volume_split import VolumeSplit, middle_patch, views
from harmofl.errors import ConfigError, DataError
from harmofl.federated.batch import Batch
from harmofl.utils.mapped_files import is_mapped

pytestmark = needs_monai
SETTINGS = VolumeSettings(patch_size=(16, 8, 8), patches_per_volume=3)


def split_of(*shapes, size=(4, 4, 4), per_volume=2):
    """Return a split whose voxels are numbered; the last one of each volume is of a structure."""
    images = tuple(np.arange(np.prod(shape), dtype=np.float16).reshape(shape) / 2048 for shape in shapes)
    targets = tuple(np.zeros(shape, np.uint8) for shape in shapes)
    for target in targets:
        target[-1, -1, -1] = 1
    return VolumeSplit(images, targets, tuple(map(str, range(len(shapes)))), patch_size=size, per_volume=per_volume)


def test_patches_are_cut_out_of_their_volume():
    split = split_of((9, 7, 5))
    random = np.random.default_rng(0)
    for _ in range(20):
        batch = split.training_batch([0, 1], random)
        assert batch.images.shape == (2, 1, 4, 4, 4) and batch.images.dtype == torch.float32
        assert batch.targets.shape == (2, 4, 4, 4) and batch.targets.dtype == torch.int64
        for image, target in zip(batch.images[:, 0].numpy(), batch.targets.numpy(), strict=True):
            corner = np.argwhere(split.images[0] == np.float16(image[0, 0, 0]))[0]
            place = tuple(slice(a, a + 4) for a in corner)
            np.testing.assert_array_equal(image, split.images[0][place])
            np.testing.assert_array_equal(target, split.targets[0][place])


def test_half_of_the_patches_show_a_structure():
    """One voxel in a corner of 20 x 20 x 20: a random patch shows it in 1 of 4000."""
    split = split_of((20, 20, 20), per_volume=400)
    shown = split.training_batch(range(400), np.random.default_rng(0)).targets.flatten(1).any(dim=1)
    assert 0.4 < shown.double().mean() < 0.6


def test_items_are_patches_of_every_volume_in_turn():
    split = split_of((4, 4, 4), (6, 6, 6), per_volume=3)
    assert len(split) == 2 and split.items == 6 and split.shape == (1, 4, 4, 4)
    whole = split.training_batch([0, 1, 2], np.random.default_rng(0)).images
    np.testing.assert_array_equal(whole[:, 0], np.broadcast_to(split.images[0].astype(np.float32), (3, 4, 4, 4)))


def test_a_small_volume_is_padded_on_both_sides():
    split = split_of((2, 4, 3))
    patch = split.batch([0]).images[0, 0].numpy()
    np.testing.assert_array_equal(patch[1:3, :, :3], split.images[0].astype(np.float32))
    assert not patch[[0, 3]].any() and not patch[:, :, 3].any()


def test_middle_patches_do_not_depend_on_chance():
    split = split_of((9, 7, 5), (4, 8, 6))
    np.testing.assert_array_equal(split.batch([1, 0]).images[1], split.batch([0]).images[0])
    np.testing.assert_array_equal(split.batch([0]).images, middle_patch(split.images[0], (4, 4, 4)))
    np.testing.assert_array_equal(split.batch([0]).images[0, 0], split.images[0][2:6, 1:5, 0:4].astype(np.float32))


def test_views_do_not_copy():
    flat = np.arange(30)
    first, second = views(flat, np.array([[2, 3, 1], [2, 3, 4]]))
    assert np.shares_memory(first, flat) and np.shares_memory(second, flat)
    assert second.shape == (2, 3, 4) and second[0, 0, 0] == 6
    assert views(flat[:0], np.empty((0, 3), int)) == ()


def test_flips_move_a_volume_with_its_labels():
    voxels = torch.arange(2 * 24).reshape(2, 1, 2, 3, 4).float()
    batch = Batch(voxels, voxels[:, 0].long())
    kinds = set()
    for seed in range(40):
        moved = flip_volumes(batch, np.random.default_rng(seed))
        assert torch.equal(moved.images[:, 0].long(), moved.targets)
        kinds.add(int(moved.targets[0, 0, 0, 0]))
    assert len(kinds) == 8
    assert torch.equal(batch.images, voxels)


def test_volumes_are_read_once_and_mapped_from_the_cache(tmp_path, monkeypatch):
    folder = write_volumes(tmp_path / "fed")
    held = open_federation(folder, volumes=SETTINGS)
    mapped = open_federation(folder, volumes=SETTINGS, cache=tmp_path / "cache")
    monkeypatch.setattr("harmofl.data.site.assemble_volumes", None)
    again = open_federation(folder, volumes=SETTINGS, cache=tmp_path / "cache")
    assert held.fingerprint() == mapped.fingerprint() == again.fingerprint()
    train = again.sites[0].train
    assert all(is_mapped(one) for one in (*train.images, *train.targets))
    assert train.bytes_held == 0 < held.sites[0].train.bytes_held
    assert again.info.volumes.spacing == (2.0, 1.0, 1.0)
    assert {one.shape for one in train.images} != {train.images[0].shape}


def test_another_patch_needs_no_other_cache_but_another_spacing_does(tmp_path, monkeypatch):
    folder = write_volumes(tmp_path / "fed", sites=1)
    open_federation(folder, volumes=SETTINGS, cache=tmp_path / "cache")
    open_federation(folder, volumes=VolumeSettings(patch_size=(8, 8, 8)), cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    open_federation(folder, volumes=VolumeSettings(spacing=(1, 1, 1)), cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_sites_are_merged_and_undivided_without_copies(tmp_path):
    sites = open_federation(write_volumes(tmp_path), volumes=SETTINGS).sites
    pooled = merged(sites)
    assert pooled.train.parts == tuple(3 * len(site.train) for site in sites)
    assert pooled.train.images[-1] is sites[1].train.images[-1]
    assert pooled.train.cases[0].startswith("site-0/")
    assert len(undivided(sites[0]).test) == 5 and len(undivided(sites[0]).train) == 0


def refused(folder, error, **settings):
    with pytest.raises(error) as caught:
        open_federation(folder, volumes=VolumeSettings(**settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_photographs_and_classes_are_refused(tmp_path, federation):
    assert "needs NIfTI volumes, got site-1/images" in refused(federation, ConfigError)
    for label in ("cat", "dog"):
        for k in range(3):
            save_volume(tmp_path / "a" / label / f"{label}{k}.nii.gz", scene(k)[0])
    assert "is for segmentation, got classification" in refused(tmp_path, ConfigError)


def test_monai_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    said = refused(write_volumes(tmp_path, sites=1), ConfigError)
    assert said == "data.mode = \"volumes\" needs monai; install it with: pip install 'harmofl[monai]'"


def test_a_mask_elsewhere_is_refused(tmp_path):
    folder = write_volumes(tmp_path, sites=1)
    away = np.diag([*SPACING, 1.0])
    away[0, 3] = 30
    save_volume(folder / "site-0" / "masks" / "v1.nii.gz", scene(1)[1], away)
    assert "site-0/images/v1.nii.gz" in refused(folder, DataError)
    save_volume(folder / "site-0" / "masks" / "v1.nii.gz", scene(1)[1][:-1], np.diag([*SPACING, 1.0]))
    assert "mask v1.nii.gz is 12x25x24 voxels (D x H x W), image is 14x26x24" in refused(folder, DataError)
