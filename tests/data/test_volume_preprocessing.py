"""Volumes as a network sees them: turned, cropped to the body, resampled, scaled; and the way back to the file."""

import nibabel
import numpy as np
import pytest
import torch
from folders_on_disk import save_volume
from volumes_on_disk import SPACING, scene

from harmofl.data.decoding.volume_preprocessing import (
    body_of,
    network_spacing,
    prepare_volume,
    range_of,
    read_prepared_volume,
)
from harmofl.data.decoding.volumes import read_label_volume
from harmofl.data.volume_settings import VolumeSettings
from harmofl.errors import DataError

SETTINGS = VolumeSettings(spacing=(1.0, 1.0, 1.0))
AXES = ("RAS", "LPS", "ASR", "PIL")


def stored_as(axes, tmp_path):
    """Write a scene with another order and direction of its axes; return the paths of image and mask."""
    voxels, labels = scene(0)
    ends = (nibabel.orientations.axcodes2ornt(codes) for codes in ("RAS", axes))
    turn = nibabel.orientations.ornt_transform(*ends)
    paths = []
    for name, array in (("image", voxels), ("mask", labels)):
        image = nibabel.Nifti1Image(array, np.diag([*SPACING, 1.0])).as_reoriented(turn)
        paths.append(tmp_path / f"{axes}-{name}.nii.gz")
        save_volume(paths[-1], np.asarray(image.dataobj), image.affine)
    return paths


def test_spacing_is_that_of_the_networks_axes(tmp_path):
    for axes in AXES:
        assert network_spacing(stored_as(axes, tmp_path)[0]) == (2.0, 1.0, 1.0)


def test_every_orientation_gives_the_same_voxels(tmp_path):
    one, *others = (
        read_prepared_volume(image, SETTINGS, read_label_volume(mask).astype(np.uint8))
        for image, mask in (stored_as(axes, tmp_path) for axes in AXES)
    )
    assert one.image.dtype == np.float16 and one.labels.dtype == np.uint8
    assert one.image.shape == one.labels.shape
    for other in others:
        np.testing.assert_array_equal(other.image, one.image)
        np.testing.assert_array_equal(other.labels, one.labels)


def test_the_crop_is_the_body_in_millimetres(tmp_path):
    image, _ = stored_as("RAS", tmp_path)
    voxels = np.moveaxis(scene(0)[0], 2, 0)
    inside = np.argwhere(body_of(voxels, SETTINGS))
    extent = (np.ptp(inside, axis=0) + 1) * (2, 1, 1)
    assert (np.abs(np.array(read_prepared_volume(image, SETTINGS).image.shape) - extent) <= 1).all()
    assert (extent < np.array(voxels.shape) * (2, 1, 1)).all()


def test_labels_outside_of_the_body_are_kept():
    voxels, labels = (np.moveaxis(array, 2, 0).copy() for array in scene(0))
    labels[0, 0, 0] = 1
    prepared = prepare_volume(voxels, (2.0, 1.0, 1.0), SETTINGS, labels)
    assert prepared.labels[0, 0, 0] == 1
    assert prepared.image.shape > prepare_volume(voxels, (2.0, 1.0, 1.0), SETTINGS).image.shape


def test_zscores_are_of_the_body_and_do_not_depend_on_the_scale():
    voxels = np.moveaxis(scene(0)[0], 2, 0).copy()
    body = voxels[body_of(voxels, SETTINGS)]
    low, high = range_of(body, SETTINGS)
    assert low == pytest.approx(body.mean() - 4 * body.std(), rel=1e-5)
    assert high == pytest.approx(body.mean() + 4 * body.std(), rel=1e-5)
    one, other = (prepare_volume(gain * voxels, (2.0, 1.0, 1.0), SETTINGS).image for gain in (1, 1000))
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert one.min() >= 0 and one.max() <= 1


def test_a_window_maps_its_ends_to_0_and_1():
    settings = VolumeSettings(spacing=(1.0, 1.0, 1.0), intensity="window", window=(-160.0, 240.0))
    voxels = np.full((8, 8, 8), -1000, np.float32)
    voxels[2:6, 2:6, 2:6] = 40
    voxels[3, 3, 3] = 3000
    image = prepare_volume(voxels, (1.0, 1.0, 1.0), settings).image
    assert image.shape == (4, 4, 4)
    assert image[0, 0, 0] == np.float16(0.5) and image[1, 1, 1] == 1


def test_a_constant_volume_is_read():
    image = prepare_volume(np.full((4, 5, 6), 7, np.float32), (1.0, 1.0, 1.0), SETTINGS).image
    assert image.shape == (4, 5, 6)
    assert (image == 0.5).all()


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (1.0, 0.7, 1.3), (3.0, 2.0, 2.0)])
def test_logits_come_back_to_the_voxels_of_the_file(spacing):
    """Labels of a ball, resampled and brought back, overlap with it; a mirrored axis or a shift would not."""
    voxels, labels = (np.moveaxis(array, 2, 0).copy() for array in scene(0))
    prepared = prepare_volume(voxels, (2.0, 1.0, 1.0), VolumeSettings(spacing=spacing), labels)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(prepared.labels.astype(np.int64)), 2).movedim(-1, 0)
    back = prepared.restore(one_hot).argmax(dim=0).numpy()
    assert back.shape == labels.shape
    dice = 2 * (back * labels).sum() / (back.sum() + labels.sum())
    assert dice > (0.999 if spacing == (2.0, 1.0, 1.0) else 0.85)
    np.testing.assert_allclose(np.argwhere(back).mean(axis=0), np.argwhere(labels).mean(axis=0), atol=0.5)


def test_a_damaged_volume_is_refused_in_one_line(tmp_path):
    path = tmp_path / "v.nii"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_prepared_volume(path, SETTINGS)
