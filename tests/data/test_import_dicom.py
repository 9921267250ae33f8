"""DICOM exports imported: series as volumes, photographs, masks and segmentations, patients kept together."""

import builtins
import shutil
from pathlib import Path

import dicom_files as scans
import nibabel
import numpy as np
import pydicom
import pytest
from folders_on_disk import import_refused, patients_by_split, save, save_volume
from PIL import Image

from harmofl import open_federation
from harmofl.data.layout.image_table import Columns
from harmofl.data.manifest import read_manifest
from harmofl.errors import ConfigError, DataError, RunError
from harmofl.ingest import import_federation
from harmofl.ingest.dicom.dicom_files import Series, series_in
from harmofl.ingest.dicom.dicom_photographs import read_dicom_photograph
from harmofl.ingest.dicom.dicom_volumes import read_dicom_volume, read_segmentation
from harmofl.utils.atomic_files import locked

REAL = Path(pydicom.__file__).parent / "data" / "test_files"


def voxels(seed: int = 0, shape: tuple[int, int, int] = (5, 8, 6)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def labels(shape: tuple[int, int, int] = (5, 8, 6)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.int64)
    mask[1:4, 2:6, 1:3] = 1
    mask[2, 3:5, 3:5] = 2
    return mask


def the_series(folder: Path) -> Series:
    (series,) = series_in(sorted(folder.iterdir()))
    return series


def test_a_series_is_sorted_by_place_and_rescaled(tmp_path):
    scans.write_series(tmp_path, voxels())
    volume = read_dicom_volume(the_series(tmp_path))
    assert (volume.voxels == voxels().transpose(2, 1, 0)).all()


def test_the_affine_is_niftis(tmp_path):
    """Row 2, column 3 of slice 1 by hand: LPS = (-10 + 3 * .8, -20 + 2 * .5, 5 + 3); RAS turns the first two."""
    scans.write_series(tmp_path, voxels())
    affine = read_dicom_volume(the_series(tmp_path)).affine
    assert affine @ [3, 2, 1, 1] == pytest.approx([10 - 2.4, 20 - 1.0, 8, 1])


def test_a_sagittal_series_fits_its_nifti_copy(tmp_path):
    """Slices to the left: rows run to the back, columns to the feet."""
    scans.write_series(tmp_path, voxels(), direction=(0, 1, 0, 0, 0, -1))
    volume = read_dicom_volume(the_series(tmp_path))
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.voxels, volume.affine))
    assert nibabel.aff2axcodes(canonical.affine) == ("R", "A", "S")
    assert canonical.shape == (5, 6, 8)


@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_one_file_of_many_frames(tmp_path, slope):
    values = np.arange(5 * 8 * 6, dtype=np.uint16).reshape(5, 8, 6)
    scans.write_enhanced(tmp_path / "IM1.dcm", values, slope=slope)
    scans.write_series(tmp_path / "old", voxels())
    volume = read_dicom_volume(series_in([tmp_path / "IM1.dcm"])[0])
    assert (volume.voxels == slope * values.transpose(2, 1, 0)).all()
    assert (volume.affine == read_dicom_volume(the_series(tmp_path / "old")).affine).all()


@pytest.mark.parametrize("kind", ["RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_compressed_files(kind):
    plain, packed = (read_dicom_volume(series_in([REAL / f"MR_small{end}.dcm"])[0]) for end in ("", f"_{kind}"))
    assert (plain.voxels == packed.voxels).all()


def test_contours_are_no_mask(tmp_path):
    for k in range(3):
        scans.write_series(tmp_path / f"in/north/images/p{k}", voxels())
        contours = scans.dataset("1.2.840.10008.5.1.4.1.1.481.3", "123", "1.2.3", np.zeros((1, 1), dtype=np.uint8))
        contours.Modality = "RTSTRUCT"
        for name in ("Rows", "Columns", "PixelData"):
            delattr(contours, name)
        scans.write(contours, tmp_path / f"in/north/masks/p{k}/RS.dcm")
    with pytest.raises(
        DataError, match=r"contours \(RTSTRUCT\) are not supported; export them as a DICOM segmentation"
    ):
        import_federation(tmp_path / "in", tmp_path / "fed")


def test_a_mask_called_as_its_scan_does_not_take_its_place(tmp_path):
    table, told = tmp_path / "in/t.csv", []
    scan = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for k in range(4):
        scans.write_xray(tmp_path / f"in/{k}.dcm", scan + k, patient=f"id{k // 2}")
        save(tmp_path / f"in/{k}.png", np.eye(8, dtype=np.uint8) * 255)
    table.write_text("\n".join(["image,mask,split", *(f"{k}.dcm,{k}.png,test" for k in range(4))]))
    import_federation(table, tmp_path / "fed", warned=told.append)
    assert not any("no column gives the patient" in line for line in told)
    image = np.asarray(Image.open(tmp_path / "fed/t/images/0.png"))
    assert image.shape == (8, 8) and image[0, 1] not in (0, 255)
    assert np.asarray(Image.open(tmp_path / "fed/t/masks/0.png")).tolist() == (np.eye(8) * 255).tolist()
    scans.write_xray(tmp_path / "in/0.ima", scan)
    table.write_text("\n".join(["image,mask", "0.dcm,0.png", "0.ima,1.png", "1.dcm,2.png"]))
    import_refused(table, tmp_path / "again", r"0.dcm and 0.ima are converted to files of the same name; rename one")


def test_metadata_that_does_not_tell_the_patients(tmp_path):
    rows = ["site,file,age"]
    for k in range(16):
        kind = ("cat", "dog")[k % 2]
        scans.write_xray(tmp_path / f"in/n/{kind}/{k}.dcm", k + np.eye(6, dtype=np.uint8), patient=f"id{k % 4}")
        rows.append(f"n,{kind}/{k}.dcm,{k}")
    (tmp_path / "in/metadata.csv").write_text("\n".join(rows))
    import_federation(tmp_path / "in", tmp_path / "fed")
    records = read_manifest(tmp_path / "fed/n")
    assert len({record.patient for record in records}) == 4
    assert all(record.patient.startswith("p-") for record in records)


def test_a_killed_import_leaves_nothing_to_the_next(tmp_path):
    for k in range(5):
        scans.write_series(tmp_path / f"in/north/images/p{k}", voxels(), patient=f"{k}")
        scans.write_segmentation(tmp_path / f"in/north/masks/p{k}.dcm", labels())
    left = tmp_path / ".fed.importing"
    (left / "converted").mkdir(parents=True)
    with locked(left, "importing to"), pytest.raises(RunError, match="another process is importing"):
        import_federation(tmp_path / "in", tmp_path / "fed")
    import_federation(tmp_path / "in", tmp_path / "fed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fed", "in"]


def test_a_missing_slice_and_two_at_one_place(tmp_path):
    scans.write_series(tmp_path / "gap", voxels(), skip=(2,))
    with pytest.raises(DataError, match=r"a slice of series .* is missing between 8.0 and 14.0 mm"):
        read_dicom_volume(the_series(tmp_path / "gap"))
    series = scans.write_series(tmp_path / "twice", voxels())
    scans.write_series(tmp_path / "twice" / "again", voxels(1), series=series)
    (one,) = series_in(sorted((tmp_path / "twice").rglob("*.dcm")))
    with pytest.raises(DataError, match=r"two slices of series .* are at the same position \(5.0 mm\)"):
        read_dicom_volume(one)


def test_real_files_of_several_kinds():
    """Scanner files that pydicom ships: compressed, palette, YBR; values as pydicom's own documents show them."""
    ct = read_dicom_volume(series_in([REAL / "CT_small.dcm"])[0])
    assert ct.voxels.shape == (128, 128, 1) and ct.voxels.min() == -896
    colour = read_dicom_photograph(REAL / "SC_rgb_dcmtk_+eb+cr.dcm")
    assert colour.shape[2] == 3 and colour[5, 50].tolist() == [255, 0, 0]
    assert np.abs(read_dicom_photograph(REAL / "SC_ybr_full_422_uncompressed.dcm")[5, 50] - [254, 0, 0.0]).max() <= 2
    assert read_dicom_photograph(REAL / "examples_palette.dcm").shape == (350, 800, 3)
    assert series_in([REAL / "reportsi.dcm"]) == []
    with pytest.raises(DataError, match=r"MR_truncated.dcm: cannot be read as DICOM .*restore it"):
        read_dicom_volume(series_in([REAL / "MR_truncated.dcm"])[0])


def test_photographs_are_windowed_and_never_inverted(tmp_path):
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    scans.write_xray(tmp_path / "a.dcm", ramp)
    scans.write_xray(tmp_path / "b.dcm", 4095 - ramp, inverted=True)
    scans.write_xray(tmp_path / "c.dcm", ramp, WindowCenter=1000, WindowWidth=200)
    plain, turned, window = (read_dicom_photograph(tmp_path / f"{name}.dcm") for name in "abc")
    assert plain[0, 0] == 0 and plain[-1, -1] == 255
    assert turned[0, 0] == 0 and turned[-1, -1] == 255
    assert window.reshape(-1)[800] == 0 and 120 <= window.reshape(-1)[1000] <= 135 and window.reshape(-1)[1200] == 255


@pytest.mark.parametrize(
    ("function", "shown"),
    [  # of 900, 925, 950, 1000, 1075, 1100 in a window of 200 around 1000, by PS3.3, C.11.2.1
        ("LINEAR", [0, 25 / 199, 50 / 199, 100 / 199, 175 / 199, 1]),
        ("LINEAR_EXACT", [0, 0.125, 0.25, 0.5, 0.875, 1]),
        ("SIGMOID", [1 / (1 + np.exp(-x)) for x in (-2, -1.5, -1, 0, 1.5, 2)]),
    ],
)
def test_window_functions(tmp_path, function, shown):
    values = np.array([[900, 925, 950, 1000, 1075, 1100]], np.uint16)
    scans.write_xray(tmp_path / "x.dcm", values, WindowCenter=1000, WindowWidth=200, VOILUTFunction=function)
    assert read_dicom_photograph(tmp_path / "x.dcm")[0].tolist() == np.rint(np.array(shown) * 255).tolist()


def test_windows_that_are_none(tmp_path):
    values = np.zeros((4, 4), np.uint16)
    scans.write_xray(tmp_path / "x.dcm", values + np.uint16(9), WindowCenter=None, WindowWidth=None, VOILUTSequence=[])
    assert not read_dicom_photograph(tmp_path / "x.dcm").any()
    scans.write_xray(tmp_path / "x.dcm", values, WindowCenter=1000, WindowWidth=0)
    with pytest.raises(DataError, match="a window must have a width of at least 1, got 0"):
        read_dicom_photograph(tmp_path / "x.dcm")
    scans.write_xray(tmp_path / "x.dcm", values, WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC")
    with pytest.raises(DataError, match="VOILUTFunction must be LINEAR, LINEAR_EXACT or SIGMOID, got CUBIC"):
        read_dicom_photograph(tmp_path / "x.dcm")


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_tables_of_grey_values(tmp_path, bits):
    """The table turns 1000 to 1999 over; what is below or above has its first or last entry."""
    table = pydicom.Dataset()
    entries = np.rint(np.linspace(2**bits - 1, 0, 1000)).astype(np.uint16)
    table.LUTDescriptor = [1000, 1000, bits]
    table.add_new("LUTData", "OW", entries.tobytes() if bits > 8 else entries.astype(np.uint8).tobytes())
    values = np.array([[0, 1000, 1250, 1999, 4000]], np.uint16)
    scans.write_xray(tmp_path / "x.dcm", values, VOILUTSequence=[table])
    want = np.rint(np.append(entries, 0)[[0, 0, 250, 999, 999]] / (2**bits - 1) * 255)
    assert read_dicom_photograph(tmp_path / "x.dcm")[0].tolist() == want.tolist()


def hospital(root: Path, mask: str) -> Path:
    """Two sites of a case a folder; masks as NIfTI, as DICOM series, or as DICOM SEG."""
    for site in ("a", "b"):
        for k in range(4):
            scans.write_series(root / site / "images" / f"case{k}" / "STUDY", voxels(k), patient=f"{site}{k // 2}")
            if mask == "nifti":
                affine = np.diag([-0.8, -0.5, 3.0, 1.0])
                affine[:3, 3] = (10, 20, 5)
                save_volume(
                    root / site / "masks" / f"case{k}.nii.gz", labels().transpose(2, 1, 0).astype(np.uint8), affine
                )
            elif mask == "series":
                scans.write_series(root / site / "masks" / f"case{k}", labels(), patient=f"{site}{k // 2}")
            else:
                scans.write_segmentation(root / site / "masks" / f"case{k}.dcm", labels())
    return root


@pytest.mark.parametrize("mask", ["nifti", "series", "seg"])
def test_a_hospitals_export(tmp_path, mask):
    hospital(tmp_path / "in", mask)
    for site in "ab":
        scans.write_series(tmp_path / f"in/{site}/images/case9", voxels(9), patient="other")
        scans.write_segmentation(tmp_path / f"in/{site}/masks/case9.dcm", labels())
    info = import_federation(tmp_path / "in", tmp_path / "fed", channels=3)
    assert info.classes == ("class_0", "class_1", "class_2")
    records = read_manifest(tmp_path / "fed/a")
    assert {record.image for record in records} == {f"images/case{k}.nii.gz" for k in (0, 1, 2, 3, 9)}
    sides = patients_by_split(tmp_path / "fed/a")
    assert sorted(map(len, sides.values())) == [1, 1, 1] and len(set.union(*sides.values())) == 3
    assert all(patient.startswith("p-") for patient in set.union(*sides.values()))
    image = nibabel.load(tmp_path / "fed/a/images/case1.nii.gz")
    assert (np.asarray(image.dataobj) == voxels(1).transpose(2, 1, 0)).all() and image.get_data_dtype() == np.int16
    drawn = nibabel.load(tmp_path / "fed/a/masks/case1.nii.gz")
    assert (np.asarray(drawn.dataobj) == labels().transpose(2, 1, 0)).all()
    assert np.allclose(drawn.affine, image.affine)
    federation = open_federation(tmp_path / "fed")
    assert federation.sites[0].train.images.shape[1:] == (3, 6, 8)
    leaked = [path for path in (tmp_path / "fed").rglob("*") if path.is_file() and b"Doe" in path.read_bytes()]
    assert not leaked
    assert not [path.name for path in tmp_path.iterdir() if path.name not in ("in", "fed")]


def test_classes_of_photographs_and_of_series(tmp_path):
    for kind in ("well", "ill"):
        for k in range(4):
            scans.write_xray(
                tmp_path / "in/x" / kind / f"{k}.dcm", np.full((6, 6), 40 * k, np.uint8) + np.eye(6, dtype=np.uint8)
            )
    scans.write_xray(tmp_path / "in/x/ill/no-suffix", np.eye(6, dtype=np.uint8))
    import_federation(tmp_path / "in", tmp_path / "fed")
    assert (tmp_path / "fed/x/images/ill/no-suffix.png").is_file()
    assert open_federation(tmp_path / "fed").sites[0].train.images.shape[1:] == (1, 6, 6)
    for kind in ("well", "ill"):
        for k in range(3):
            scans.write_series(tmp_path / "vol/x" / kind / f"case{k}", voxels(k), patient=f"{kind}{k}")
            if k == 1:
                scans.write_series(tmp_path / "vol/x" / kind / f"case{k}" / "second", voxels(7), patient=f"{kind}{k}")
    import_federation(tmp_path / "vol", tmp_path / "fed2")
    names = sorted(path.name for path in (tmp_path / "fed2/x/images/ill").iterdir())
    assert names == ["case0.nii.gz", "case1_1.nii.gz", "case1_2.nii.gz", "case2.nii.gz"]


def test_the_split_is_said_to_be_from_what_tells_the_patients(tmp_path):
    root, said = hospital(tmp_path / "in", "seg"), []
    for site in "ab":
        scans.write_series(root / site / "images/case4", voxels(9), patient="other")
        scans.write_segmentation(root / site / "masks/case4.dcm", labels())
    for k, table in enumerate(("", "site,file\n", "site,file,Subject\n")):
        if table:
            end = ",p\n" if "Subject" in table else "\n"
            rows = (f"{site},case{case}{end.replace('p', f'p{case}')}" for site in "ab" for case in range(5))
            (root / "Metadata.csv").write_text(table + "".join(rows))
        import_federation(root, tmp_path / f"fed{k}", told=said.append)
    by = "split at random by patient from"
    assert [line.rpartition(", ")[2] for line in said] == [
        *2 * [f"{by} DICOM headers"],
        f"{by} metadata.csv",
    ]


def test_metadata_names_files_or_folders(tmp_path):
    root = hospital(tmp_path / "in", "seg")
    rows = [
        f"{site},{'images/' * (k % 2)}case{k},p{k},{s}"
        for site in "ab"
        for k, s in enumerate(("train", "val", "test", "test"))
    ]
    (root / "metadata.csv").write_text("\n".join(["site,file,patient,split", *rows]))
    import_federation(root, tmp_path / "fed")
    assert [(r.image, r.patient, r.split) for r in read_manifest(tmp_path / "fed/b")][:2] == [
        ("images/case0.nii.gz", "p0", "train"),
        ("images/case1.nii.gz", "p1", "val"),
    ]


@pytest.mark.parametrize(("named", "whole"), [("case0/IM007.dcm", "case0.nii.gz"), ("two", "2 images")])
def test_metadata_that_names_a_part_of_a_series_or_several(tmp_path, named, whole):
    for name in ("case0", "case1", "case2", "two", "two/second"):
        scans.write_series(tmp_path / "in/a/well" / name, voxels(), patient=name.partition("/")[0])
    (tmp_path / "in/metadata.csv").write_text(f"site,file,split\na,well/case1,train\na,well/{named},test\n")
    with pytest.raises(
        DataError, match=rf"metadata\.csv:3: .* got well/{named}, but all of a/well/.* becomes {whole};"
    ):
        import_federation(tmp_path / "in", tmp_path / "fed")


def test_metadata_names_photographs_of_a_folder(tmp_path):
    rows = ["site,file,patient,split"]
    for k, split in enumerate(("train", "val", "test")):
        for kind in ("well", "ill"):
            scans.write_xray(tmp_path / "in/x" / kind / "visit" / f"{k}.dcm", np.eye(6, dtype=np.uint8) * (k + 1))
            rows.append(f"x,{kind}/visit/{k}.dcm,p{k},{split}")
    (tmp_path / "in/metadata.csv").write_text("\n".join(rows))
    import_federation(tmp_path / "in", tmp_path / "fed")
    assert {(r.image, r.patient, r.split) for r in read_manifest(tmp_path / "fed/x")} == {
        (f"images/{kind}/visit_{k + 1}.png", f"p{k}", split)
        for k, split in enumerate(("train", "val", "test"))
        for kind in ("well", "ill")
    }


def test_a_table_of_dicom(tmp_path):
    rows = ["scan,contour,clinic"]
    for k in range(8):
        scans.write_series(tmp_path / "in/pacs" / f"{k}", voxels(k), patient=f"x{k}", suffix="")
        scans.write_segmentation(tmp_path / "in/contours" / f"{k}.dcm", labels())
        rows.append(f"pacs/{k},contours/{k}.dcm,{'north' if k % 2 else 'south'}")
    (tmp_path / "in/export.csv").write_text("\n".join(rows))
    import_federation(
        tmp_path / "in/export.csv", tmp_path / "fed", columns=Columns(image="scan", target="contour", site="clinic")
    )
    federation = open_federation(tmp_path / "fed")
    assert [site.name for site in federation.sites] == ["north", "south"]
    assert {r.patient[:2] for r in read_manifest(tmp_path / "fed/north")} == {"p-"}


def test_what_is_wrong_is_named(tmp_path):
    hospital(tmp_path / "in", "seg")
    (tmp_path / "in/a/images/case2/STUDY/IM007.dcm").unlink()
    import_refused(tmp_path / "in", tmp_path / "fed", r"^a/images/case2: a slice of series .* is missing")
    shutil.rmtree(tmp_path / "in/a/images/case2")
    with pytest.raises(DataError, match=r"^a/masks/case2.dcm: a DICOM segmentation needs the image series"):
        import_federation(tmp_path / "in", tmp_path / "fed")
    scans.write_series(tmp_path / "in/a/images/case2", voxels(), origin=(0, 0, 0))
    import_refused(tmp_path / "in", tmp_path / "fed", r"^a/masks/case2.dcm: frames .* must lie on slices")
    assert not (tmp_path / "fed").exists()


def test_without_pydicom(tmp_path, monkeypatch):
    hospital(tmp_path / "in", "seg")
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("pydicom"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'harmofl\[dicom\]'"):
        import_federation(tmp_path / "in", tmp_path / "fed")


def test_flat_masks_keep_their_numbers(tmp_path):
    for k in range(4):
        scans.write_xray(
            tmp_path / "in/x/images" / f"{k}.dcm", np.full((6, 6), k, np.uint16) + np.eye(6, dtype=np.uint16)
        )
        scans.write_xray(tmp_path / "in/x/masks" / f"{k}.dcm", np.eye(6, dtype=np.uint8) * (1 + k % 2))
    import_federation(tmp_path / "in", tmp_path / "fed")
    assert np.unique(np.asarray(Image.open(tmp_path / "fed/x/masks/1.png"))).tolist() == [0, 2]


def test_other_files_come_along(tmp_path):
    hospital(tmp_path / "in", "seg")
    shutil.rmtree(tmp_path / "in/b")
    for k in (5, 6):
        save_volume(tmp_path / f"in/a/images/extra{k}.nii.gz", voxels(k))
        save_volume(tmp_path / f"in/a/masks/extra{k}.nii.gz", labels().astype(np.uint8))
    save(tmp_path / "in/a/preview.png", np.zeros((4, 4), np.uint8))
    import_federation(tmp_path / "in", tmp_path / "fed", size=(8, 8))
    assert len(read_manifest(tmp_path / "fed/a")) == 6


def test_what_holds_no_image_or_is_nowhere(tmp_path):
    root = hospital(tmp_path / "in", "seg")
    (root / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    shutil.copyfile(REAL / "reportsi.dcm", root / "a/images/case0/report.dcm")  # beside the series: left out
    for k in (2, 3):
        for site in "ab":
            shutil.rmtree(root / site / "images" / f"case{k}")
            scans.write_series(root / site / "images" / f"case{k}", voxels(k), patient=f"{site}{k}")
    import_federation(root, tmp_path / "fed")
    shutil.copyfile(REAL / "reportsi.dcm", root / "a/images/report.dcm")
    import_refused(root, tmp_path / "x", r"^a/images/report.dcm: holds no image; leave it out")
    (root / "a/images/report.dcm").rename(root / "stray.dcm")
    import_refused(root, tmp_path / "x", r"^stray.dcm: a DICOM file must belong to a site")


def test_names_that_meet_and_patients_that_do_not(tmp_path):
    root = hospital(tmp_path / "in", "seg")
    scans.write_xray(root / "a/images/case1.dcm", np.eye(6, dtype=np.uint8))
    import_refused(root, tmp_path / "x", r"is converted to a file of the same name; rename one")
    (root / "a/images/case1.dcm").unlink()
    save_volume(root / "a/images/case1.nii.gz", voxels())
    with pytest.raises(
        DataError, match=r"a/images/case1.nii.gz: a DICOM file beside it is converted to a file of the same name"
    ):
        import_federation(root, tmp_path / "x")
    (root / "a/images/case1.nii.gz").unlink()
    scans.write_series(root / "a/images/case1/other", voxels(), patient="somebody else")
    import_refused(root, tmp_path / "x", r"^a/images/case1: a case must be of one patient, got 2")


def test_few_slices_with_a_gap_and_a_tilted_stack(tmp_path):
    scans.write_series(tmp_path / "gap", voxels(shape=(4, 8, 6)), skip=(1,))
    with pytest.raises(DataError, match=r"is missing between 5.0 and 11.0 mm"):
        read_dicom_volume(the_series(tmp_path / "gap"))
    series = scans.write_series(tmp_path / "tilt", voxels(shape=(3, 8, 6)))
    for path in (tmp_path / "tilt").iterdir():
        header = pydicom.dcmread(path)
        header.ImagePositionPatient[1] += 0.5 * (header.ImagePositionPatient[2] - 5)  # leans to the back
        header.save_as(path)
    volume = read_dicom_volume(the_series(tmp_path / "tilt"))
    assert series and volume.affine @ [0, 0, 2, 1] == pytest.approx([10, 20 - 3, 11, 1])


def test_an_inverted_series_is_turned(tmp_path):
    scans.write_series(tmp_path / "x", voxels())
    for path in (tmp_path / "x").iterdir():
        header = pydicom.dcmread(path)
        header.PhotometricInterpretation = "MONOCHROME1"
        header.save_as(path)
    assert (read_dicom_volume(the_series(tmp_path / "x")).voxels == -voxels().transpose(2, 1, 0)).all()


def test_fractional_and_label_map_segmentations(tmp_path):
    scans.write_series(tmp_path / "image", voxels())
    image = read_dicom_volume(the_series(tmp_path / "image"))
    scans.write_segmentation(tmp_path / "f" / "x.dcm", labels(), kind="FRACTIONAL")
    assert (read_segmentation(the_series(tmp_path / "f"), image) == labels().transpose(2, 1, 0)).all()
    scans.write_segmentation(tmp_path / "m" / "x.dcm", (labels() > 0).astype(np.int64), kind="LABELMAP")
    header = pydicom.dcmread(tmp_path / "m" / "x.dcm")
    for group in header.PerFrameFunctionalGroupsSequence:
        del group.SegmentIdentificationSequence
    header.PixelData = bytes(value * 5 for value in header.PixelData)
    header.save_as(tmp_path / "m" / "x.dcm")
    assert (read_segmentation(the_series(tmp_path / "m"), image) == 5 * (labels() > 0).transpose(2, 1, 0)).all()


def test_a_window_wider_than_the_values_and_twelve_bit_colours(tmp_path):
    """Window 2048/4096: 1000 is shown as 1000.5 / 4095 of full scale (PS3.3, C.11.2.1.2)."""
    ramp = np.full((4, 4), 1000, dtype=np.uint16)
    scans.write_xray(tmp_path / "a.dcm", ramp, WindowCenter=2048, WindowWidth=4096)
    assert np.unique(read_dicom_photograph(tmp_path / "a.dcm")).tolist() == [62]
    colour = np.full((4, 4, 3), 3200, dtype=np.uint16)
    tags = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsStored": 12}
    scans.write_xray(tmp_path / "b.dcm", colour, Rows=4, Columns=4, HighBit=11, **tags)
    assert np.unique(read_dicom_photograph(tmp_path / "b.dcm")).tolist() == [200]


def test_a_mask_of_another_patient_and_a_case_of_two_series(tmp_path):
    root = hospital(tmp_path / "in", "seg")
    scans.write_segmentation(root / "a/masks/case1.dcm", labels(), patient="stranger")
    import_refused(root, tmp_path / "x", r"^a/masks/case1.dcm: a mask must be of its image's patient")
    scans.write_segmentation(root / "a/masks/case1.dcm", labels())
    scans.write_series(root / "a/images/case1/LOCALIZER", voxels(), patient="a0")
    import_refused(root, tmp_path / "x", r"^a/images/case1: must be one series, got")


def test_files_that_are_left_out_are_told_of(tmp_path):
    for kind in ("well", "ill"):
        for k in range(4):
            scans.write_xray(tmp_path / f"in/x/{kind}/{k}.dcm", k + np.eye(6, dtype=np.uint8))
    (tmp_path / "in/x/ill/9.dat").write_bytes((tmp_path / "in/x/ill/3.dcm").read_bytes())
    told = []
    import_federation(tmp_path / "in", tmp_path / "fed", warned=told.append)
    assert any(
        line.startswith("warning: x/ill/9.dat: 1 files among DICOM files are not recognised as DICOM") for line in told
    )


def test_classes_called_as_the_folders_of_their_scans(tmp_path):
    rows = ["image,label"]
    for k in range(8):
        kind = ("benign", "malignant")[k % 2]
        scans.write_series(tmp_path / f"in/{kind}/{k}", voxels(k), patient=f"q{k}")
        rows.append(f"{kind}/{k},{kind}")
    (tmp_path / "in/t.csv").write_text("\n".join(rows))
    info = import_federation(tmp_path / "in/t.csv", tmp_path / "fed")
    assert (info.task, info.classes) == ("classification", ("benign", "malignant"))
