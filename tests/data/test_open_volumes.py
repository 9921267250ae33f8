import nibabel
import numpy as np
import pytest
from folders_on_disk import save_volume, write_tree

from harmofl.data import open_federation
from harmofl.data.decoding.images import read_header
from harmofl.data.decoding.volumes import CLIP_QUANTILE, neighbourhoods, read_volume
from harmofl.data.manifest import Record, write_manifest
from harmofl.errors import DataError

SHAPE = (6, 5, 4)


def voxels(seed):
    return np.random.default_rng(seed).normal(50, 20, SHAPE).astype(np.float32)


def labels(seed):
    values = np.random.default_rng(seed).integers(0, 2, SHAPE).astype(np.uint8)
    values[0, 0] = 1
    values[:, :, 1] = 0
    return values


def write_volumes(root, **info):
    records = []
    for i, split in enumerate(("train", "val", "test")):
        save_volume(root / "a" / "images" / f"v{i}.nii.gz", voxels(i))
        save_volume(root / "a" / "masks" / f"v{i}.nii.gz", labels(i))
        records.append(Record(f"images/v{i}.nii.gz", f"masks/v{i}.nii.gz", f"v{i}", f"v{i}", split))
    write_tree(root, records, **{"channels": 1, **info})
    return root


def expected(seed):
    v = voxels(seed)
    low, high = v.min(), np.quantile(v, CLIP_QUANTILE)
    return np.moveaxis(np.rint((np.clip(v, low, high) - low) / (high - low) * 255), 2, 0)


def test_slices_along_the_last_axis(tmp_path):
    site = open_federation(write_volumes(tmp_path)).sites[0]
    assert site.train.images.shape == (4, 1, 6, 5)
    assert np.abs(site.train.images[:, 0].astype(float) - expected(0)).max() <= 1
    assert site.train.images.min() == 0
    assert site.train.images.max() == 255
    np.testing.assert_array_equal(site.train.targets, np.moveaxis(labels(0), 2, 0))
    assert site.train.cases == ("v0",) * 4


def test_neighbouring_slices_with_replicated_edges(tmp_path):
    site = open_federation(write_volumes(tmp_path), channels=3).sites[0]
    alone = open_federation(tmp_path).sites[0].train.images[:, 0]
    for z in range(4):
        np.testing.assert_array_equal(site.train.images[z], alone[[max(z - 1, 0), z, min(z + 1, 3)]])


def test_even_number_of_neighbours_is_refused():
    with pytest.raises(DataError, match="odd number of channels, got 2"):
        neighbourhoods(np.zeros((4, 2, 2)), 2)


def test_only_foreground_slices(tmp_path):
    site = open_federation(write_volumes(tmp_path, slices="foreground"), channels=3).sites[0]
    assert len(site.train) == 3
    alone = open_federation(write_volumes(tmp_path, slices="all")).sites[0].train.images[:, 0]
    np.testing.assert_array_equal(site.train.images[1], alone[[1, 2, 3]])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipped_affine_gives_the_same_slices(tmp_path, axis):
    plain = open_federation(write_volumes(tmp_path / "plain")).sites[0]
    write_volumes(tmp_path / "flipped")
    affine = np.eye(4)
    affine[axis, axis], affine[axis, 3] = -1, SHAPE[axis] - 1
    save_volume(tmp_path / "flipped/a/images/v0.nii.gz", np.flip(voxels(0), axis), affine)
    save_volume(tmp_path / "flipped/a/masks/v0.nii.gz", np.flip(labels(0), axis), affine)
    flipped = open_federation(tmp_path / "flipped").sites[0]
    np.testing.assert_array_equal(flipped.train.images, plain.train.images)
    np.testing.assert_array_equal(flipped.train.targets, plain.train.targets)


def test_swapped_axes_give_the_same_slices(tmp_path):
    plain = open_federation(write_volumes(tmp_path / "plain")).sites[0]
    write_volumes(tmp_path / "turned")
    affine = np.eye(4)[[2, 1, 0, 3]]
    save_volume(tmp_path / "turned/a/images/v0.nii.gz", voxels(0).transpose(2, 1, 0), affine)
    save_volume(tmp_path / "turned/a/masks/v0.nii.gz", labels(0).transpose(2, 1, 0), affine)
    turned = open_federation(tmp_path / "turned").sites[0]
    np.testing.assert_array_equal(turned.train.images, plain.train.images)
    assert read_header(tmp_path / "turned/a/images/v0.nii.gz").size == (6, 5)


def test_mask_with_fewer_slices(tmp_path):
    write_volumes(tmp_path)
    save_volume(tmp_path / "a/masks/v1.nii.gz", labels(1)[..., :3])
    with pytest.raises(DataError, match=r"a/images/v1\.nii\.gz: mask v1\.nii\.gz has 3 slices, image has 4"):
        open_federation(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_must_be_finite(tmp_path, bad):
    write_volumes(tmp_path)
    values = voxels(0)
    values[1, 2, 3] = bad
    save_volume(tmp_path / "a/images/v0.nii.gz", values)
    with pytest.raises(DataError, match=r"a/images/v0\.nii\.gz: voxels must be finite, got 1"):
        open_federation(tmp_path)


def test_volume_without_voxels(tmp_path):
    write_volumes(tmp_path)
    save_volume(tmp_path / "a/images/v0.nii.gz", np.zeros((6, 0, 4), np.float32))
    with pytest.raises(DataError, match=r"v0\.nii\.gz: a volume must have voxels, got shape \(6, 0, 4\)"):
        open_federation(tmp_path)


def test_volume_with_time(tmp_path):
    path = tmp_path / "t.nii"
    save_volume(path, np.zeros((2, 2, 2, 3), np.float32))
    with pytest.raises(DataError, match="must have 3 axes"):
        read_volume(path)
    save_volume(path, np.zeros((2, 2, 3, 1), np.float32))
    assert read_volume(path).shape == (3, 2, 2)


def test_fractional_labels(tmp_path):
    write_volumes(tmp_path)
    save_volume(tmp_path / "a/masks/v0.nii.gz", np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(DataError, match=r"mask masks/v0\.nii\.gz: a mask must hold whole numbers, got 0\.5"):
        open_federation(tmp_path)


def test_truncated_volume(tmp_path):
    write_volumes(tmp_path)
    path = tmp_path / "a/images/v0.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"^a/images/v0\.nii\.gz: cannot be read \("):
        open_federation(tmp_path, size=(6, 5))


def test_photograph_as_mask_of_a_volume(tmp_path):
    write_volumes(tmp_path)
    records = [
        Record("images/v0.nii.gz", "masks/p0.png", "v0", "v0", "train"),
        *(Record(f"images/p{i}.png", f"masks/p{i}.png", f"p{i}", f"p{i}", s) for i, s in ((1, "val"), (2, "test"))),
    ]
    write_manifest(tmp_path / "a", records)
    with pytest.raises(DataError, match=r"p0\.png and its image must both be volumes or both photographs"):
        open_federation(tmp_path, size=(8, 8))


def test_no_foreground_in_a_split(tmp_path):
    write_volumes(tmp_path, slices="foreground")
    save_volume(tmp_path / "a/masks/v2.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataError, match="a: test must have a slice with a mask that is not empty"):
        open_federation(tmp_path)


def test_constant_volume_is_black(tmp_path):
    save_volume(tmp_path / "c.nii", np.full(SHAPE, 7, np.float32))
    assert not read_volume(tmp_path / "c.nii").any()


def test_scaled_integers(tmp_path):
    image = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(2.0, -5.0)
    nibabel.save(image, tmp_path / "s.nii")
    assert read_volume(tmp_path / "s.nii").max() == 255
