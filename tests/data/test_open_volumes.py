import gzip
import re

import nibabel
import numpy as np
import pytest
from folders_on_disk import refused, save_volume, write_tree

from harmofl.data import open_federation
from harmofl.data.decoding.images import read_header, read_image, read_mask
from harmofl.data.decoding.volumes import CLIP_QUANTILE, neighbourhoods, read_label_volume, read_volume
from harmofl.data.manifest import Record, write_manifest
from harmofl.errors import DataError
from harmofl.ingest import find_problems

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


def with_one_voxel(value):
    values = voxels(0)
    values[1, 2, 3] = value
    return values


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("masks/v1", labels(1)[..., :3], "v1.nii.gz: mask v1.nii.gz has 3 slices, image has 4"),
        ("images/v0", with_one_voxel(np.nan), "v0.nii.gz: voxels must be finite, got 1"),
        ("images/v0", with_one_voxel(np.inf), "v0.nii.gz: voxels must be finite, got 1"),
        ("images/v0", np.zeros((6, 0, 4), np.float32), "v0.nii.gz: a volume must have voxels, got shape (6, 0, 4)"),
        (
            "masks/v0",
            np.full(SHAPE, 0.5, np.float32),
            "v0.nii.gz: mask masks/v0.nii.gz: a mask must hold whole numbers, got 0.5",
        ),
    ],
)
def test_volumes_that_cannot_be_used(tmp_path, file, values, message):
    write_volumes(tmp_path)
    save_volume(tmp_path / f"a/{file}.nii.gz", values)
    assert f"a/images/{message}" in refused(tmp_path)


def test_volume_with_time(tmp_path):
    path = tmp_path / "t.nii"
    save_volume(path, np.zeros((2, 2, 2, 3), np.float32))
    with pytest.raises(DataError, match="must have 3 axes"):
        read_volume(path)
    save_volume(path, np.zeros((2, 2, 3, 1), np.float32))
    assert read_volume(path).shape == (3, 2, 2)


def test_truncated_volume(tmp_path):
    write_volumes(tmp_path)
    path = tmp_path / "a/images/v0.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    assert refused(tmp_path, size=(6, 5)).startswith("a/images/v0.nii.gz: cannot be read (")


def test_photograph_as_mask_of_a_volume(tmp_path):
    write_volumes(tmp_path)
    records = [
        Record("images/v0.nii.gz", "masks/p0.png", "v0", "v0", "train"),
        *(Record(f"images/p{i}.png", f"masks/p{i}.png", f"p{i}", f"p{i}", s) for i, s in ((1, "val"), (2, "test"))),
    ]
    write_manifest(tmp_path / "a", records)
    assert "p0.png and its image must both be volumes or both photographs" in refused(tmp_path, size=(8, 8))


def test_no_foreground_in_a_split(tmp_path):
    write_volumes(tmp_path, slices="foreground")
    save_volume(tmp_path / "a/masks/v2.nii.gz", np.zeros(SHAPE, np.uint8))
    assert "a: test must have a slice with a mask that is not empty" in refused(tmp_path)


def test_constant_volume_is_black(tmp_path):
    save_volume(tmp_path / "c.nii", np.full(SHAPE, 7, np.float32))
    assert not read_volume(tmp_path / "c.nii").any()


def test_scaled_integers(tmp_path):
    image = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(2.0, -5.0)
    nibabel.save(image, tmp_path / "s.nii")
    assert read_volume(tmp_path / "s.nii").max() == 255


def test_a_mask_elsewhere_in_space(tmp_path):
    """One voxel is 1 mm: a tenth of it may be rounding, more is not, and a mirrored mask is not either."""
    write_volumes(tmp_path)
    for shift, axis, apart in ((0.05, 1, None), (0.5, 1, "0.5 mm"), (0, -1, "5 mm away and along LAS instead of RAS")):
        affine = np.diag([axis, 1.0, 1, 1])
        affine[2, 3] = shift
        save_volume(tmp_path / "a/masks/v0.nii.gz", labels(0), affine)
        if apart is None:
            open_federation(tmp_path)
            continue
        message = rf"^a/images/v0\.nii\.gz: mask v0\.nii\.gz must lie where its image does, .*up to {apart}"
        with pytest.raises(DataError, match=message):
            open_federation(tmp_path)
        assert find_problems(tmp_path)[0].severity == "error"


@pytest.mark.parametrize("place", ["images", "masks"])
@pytest.mark.parametrize("at", [-6, -2])  # in the checksum, and in the length after it
def test_a_changed_byte_of_a_compressed_volume(tmp_path, place, at):
    write_volumes(tmp_path)
    path = tmp_path / f"a/{place}/v1.nii.gz"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a/images/v1\.nii\.gz: .*cannot be read \(checksum"):
        open_federation(tmp_path)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "X.NII.GZ"])
def test_both_versions_of_nifti(tmp_path, second, name):
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    (tmp_path / name).write_bytes(kind(voxels(0), np.eye(4)).to_bytes())
    if name.lower().endswith("gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    np.testing.assert_array_equal(read_volume(tmp_path / name), expected(0))


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(
    ("name", "saved", "message"),
    [
        ("x.nii.gz", "x.nii", "a .nii.gz must be compressed, but this one is not compressed; rename it to .nii"),
        ("x.nii", "x.nii.gz", "a .nii must not be compressed, but this one is compressed; rename it to .nii.gz"),
    ],
)
def test_a_suffix_that_says_wrongly_whether_a_volume_is_compressed(tmp_path, second, name, saved, message):
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    nibabel.save(kind(np.ones((4, 5, 3), np.int16), np.eye(4)), tmp_path / saved)
    (tmp_path / saved).rename(tmp_path / name)
    for read in (read_header, read_image, read_mask):
        with pytest.raises(DataError, match=re.escape(message)):
            read(tmp_path / name)


def test_single_slices_with_two_axes(tmp_path):
    """Two axes are a volume of one slice, at the place that three say."""
    write_volumes(tmp_path)
    turned = np.diag([-1.0, -1, 1, 1])
    for k in range(3):
        save_volume(tmp_path / f"a/images/v{k}.nii.gz", voxels(k)[..., 0], turned)
        save_volume(tmp_path / f"a/masks/v{k}.nii.gz", labels(k)[..., 0], turned)
    train = open_federation(tmp_path).sites[0].train
    assert train.images.shape == (1, 1, 6, 5)
    np.testing.assert_array_equal(train.targets[0], labels(0)[::-1, ::-1, 0])
    save_volume(tmp_path / "a/images/v0.nii.gz", voxels(0)[..., 0], np.eye(4)[[0, 2, 1, 3]])
    message = "axial slices must be at least 2x2 voxels, got"
    assert f"{message} 6x1 voxels, (6, 5, 1) along RSA; save" in refused(tmp_path)
    save_volume(tmp_path / "a/images/v0.nii.gz", voxels(0)[:1])
    assert f"{message} 1x5 voxels" in refused(tmp_path)


def test_volumes_of_four_axes(tmp_path):
    write_volumes(tmp_path)
    save_volume(tmp_path / "a/images/v0.nii.gz", voxels(0)[..., None])
    np.testing.assert_array_equal(open_federation(tmp_path).sites[0].train.images[:, 0], expected(0))
    save_volume(tmp_path / "a/masks/v0.nii.gz", np.stack([labels(0)] * 2, axis=3))
    with pytest.raises(DataError, match=r"3 axes, got shape \(6, 5, 4, 2\); .*convert a one-hot mask"):
        open_federation(tmp_path)


@pytest.mark.parametrize("slope", [0.019607840, 0.0196078431372549])
def test_labels_rounded_by_a_scale_factor(tmp_path, slope):
    """51 times 1/51, as many programs store a scale factor, is not exactly 1."""
    image = nibabel.Nifti1Image(labels(0).astype(np.int16) * 51, np.eye(4))
    image.header.set_slope_inter(slope, 0)
    nibabel.save(image, tmp_path / "m.nii")
    np.testing.assert_array_equal(read_label_volume(tmp_path / "m.nii"), np.moveaxis(labels(0), 2, 0))
    image.header.set_slope_inter(0.0195, 0)
    nibabel.save(image, tmp_path / "m.nii")
    with pytest.raises(DataError, match=r"must hold whole numbers, got 0\.9945"):
        read_label_volume(tmp_path / "m.nii")


@pytest.mark.parametrize(("share", "low"), [(0.005, -20000), (0.3, -32768), (0.02, -10000)])
def test_a_minimum_that_would_flatten_the_contrast(tmp_path, share, low):
    """Dead voxels or padding are black, and the rest has the greys it has without them."""
    plain = np.random.default_rng(0).uniform(0, 400, (20, 20, 5)).astype(np.float32)
    odd = plain.copy()
    odd.reshape(-1)[: int(share * odd.size)] = low
    save_volume(tmp_path / "odd.nii", odd)
    save_volume(tmp_path / "plain.nii", plain)
    kept = np.moveaxis(odd != low, 2, 0)
    one, other = (read_volume(tmp_path / f"{name}.nii").astype(int) for name in ("odd", "plain"))
    assert np.abs(one - other)[kept].max() <= 5
    assert not one[~kept].any()
    released = read_volume(tmp_path / "odd.nii", "truncated")
    assert released[kept].min() > 200  # as in HarmoFL's released code


@pytest.mark.parametrize("values", [[0, 1], [0, 100, 110], [0, 900, 1000]])
def test_a_dark_ground_stays_apart_from_what_is_seen(tmp_path, values):
    seen = np.random.default_rng(0).choice(values, size=SHAPE).astype(np.float32)
    save_volume(tmp_path / "x.nii", seen)
    assert len(np.unique(read_volume(tmp_path / "x.nii"))) == len(values)
