"""Names, tables and image files as they come from hospitals: links, palettes, animations, damaged headers."""

import gzip

import nibabel
import numpy as np
import pytest
from folders_on_disk import (
    import_refused,
    photograph,
    refused,
    save,
    save_volume,
    texts,
    write_masks,
    write_metadata,
    write_tree,
)
from PIL import Image

from harmofl.data import open_federation
from harmofl.data.decoding.images import read_image, read_mask
from harmofl.data.layout.image_table import Columns
from harmofl.data.manifest import read_manifest
from harmofl.errors import DataError
from harmofl.ingest import find_problems, import_federation
from harmofl.ingest.synthetic.federation import write_federation


def test_linked_sites_are_called_as_their_links(tmp_path):
    for site in ("rome", "oslo"):
        write_masks(tmp_path / "mnt" / site, ("data",))
        (tmp_path / "sites").mkdir(exist_ok=True)
        (tmp_path / "sites" / site).symlink_to(tmp_path / "mnt" / site / "data")
    assert [site.name for site in open_federation(tmp_path / "sites").sites] == ["oslo", "rome"]


def test_one_name_written_in_two_ways(tmp_path):
    write_masks(tmp_path, ("Zu\u0308rich", "Z\u00fcrich"))
    assert "sites must have different names, got 'Z\u00fcrich' twice" in refused(tmp_path)


def test_mask_with_a_palette(tmp_path):
    shown = np.array([[0, 255], [255, 0]], np.uint8)
    image = Image.frombytes("P", (2, 2), (1 - shown // 255).tobytes())
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as saved:
        assert saved.mode == "P"
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png")[0], shown)
    image.putpalette([255, 255, 255, 0, 0, 0, 128, 0, 0])
    image.putpixel((0, 0), 2)
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png")[0], [[2, 0], [0, 1]])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "MPO", "WEBP"])
def test_several_frames(tmp_path, kind):
    frames = [Image.fromarray(photograph(i)) for i in range(3)]
    frames[0].save(tmp_path / "x", format=kind, save_all=True, append_images=frames[1:])
    (tmp_path / "x").rename(tmp_path / "x.png")
    with pytest.raises(DataError, match=f"must be one image, got a {kind} of 3 frames"):
        read_image(tmp_path / "x.png")
    with pytest.raises(DataError, match="must be one image"):
        read_mask(tmp_path / "x.png")


def test_one_class(tmp_path):
    for i in range(4):
        save(tmp_path / "a/benign" / f"{i}.png", photograph(i))
    assert "there must be 2 to 255 classes, got only 'benign'" in refused(tmp_path)


@pytest.mark.parametrize(
    ("old", "name"),
    [("a/images/p1.png", "a/images/\udce9.png"), ("a/masks/p1.png", "a/masks/\udce9.png"), ("b", "\udce9")],
)
def test_names_that_are_not_utf8(tmp_path, old, name):
    write_masks(tmp_path / "d")
    (tmp_path / "d" / old).rename(tmp_path / "d" / name)
    for message in (refused(tmp_path / "d"), str(find_problems(tmp_path / "d")[0])):
        assert message.encode()
        assert "\\xe9" in message
        assert "must be UTF-8; rename it" in message
    import_refused(tmp_path / "d", tmp_path / "new", "must be UTF-8")


def test_the_folder_itself_is_not_utf8(tmp_path):
    bad = tmp_path / "\udce9"
    assert "must be UTF-8" in refused(write_masks(bad))
    for call in (
        lambda: find_problems(bad),
        lambda: import_federation(write_masks(tmp_path / "d"), tmp_path / "\udcea"),
        lambda: write_federation(tmp_path / "\udceb"),
    ):
        with pytest.raises(DataError, match="must be UTF-8") as error:
            call()
        assert str(error.value).encode()


def test_paths_are_compared_in_one_way(tmp_path):
    write_masks(tmp_path, ("a",), images=4)
    rows = [{"file": f"p{i}.png", "split": s} for i, s in enumerate(("train", "val", "test"))]
    write_metadata(tmp_path, [*rows, {"file": "./images/p0.png", "split": "train"}])
    assert "a/images/p0.png: an image must have one row, got 2" in refused(tmp_path)
    write_metadata(tmp_path, [*rows, {"file": "../../x.png", "split": "train"}])
    assert "must be inside its site's folder" in refused(tmp_path)
    tree = write_tree(tmp_path / "t")
    table = tree / "a/manifest.csv"
    table.write_text(table.read_text() + "./images/p0.png,masks//p0.png,p0,p0,train\n")
    assert "a/images/p0.png: an image must have one row, got 2" in refused(tree)


def rewritten(path, at, values):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[at : at + len(values)] = values
    path.write_bytes(gzip.compress(bytes(content)))


COLOURS = np.zeros((4, 4, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("voxels", "at", "values", "message"),
    [
        (np.ones((4, 4, 3)), 252, b"\0\0\2\0" + bytes(76 - 4), "affine must be finite and invertible"),
        (COLOURS, 0, b"", "one real number per voxel, got colours"),
        (np.zeros((4, 4, 3), np.complex64), 0, b"", "one real number per voxel, got complex numbers"),
        (np.ones((4, 4, 3)), 70, b"\xff\x7f", "cannot be read"),
        (np.ones((4, 4, 3)), 40, b"\xff\xff\xff\x7f", "cannot be read"),
        (np.full((4, 4, 3), 1e300), 0, b"", "voxels must be finite"),
    ],
)
def test_damaged_volumes_are_one_line(tmp_path, capfd, voxels, at, values, message):
    path = tmp_path / "v.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    rewritten(path, at, values)
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_import_into_its_source(tmp_path):
    source = write_masks(tmp_path / "source")
    import_refused(source, source / "new", r"must not be inside .*source; choose another folder to import to")
    assert not (source / "new").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("site;file;split\na;p0.png;train\n", "must be separated by commas, got semicolons"),
        ("site\tfile\tpatient ID\na\tp0.png\tz\n", "must be separated by commas, got tabs; save it again with commas"),
        ('"site"|"file"\n"a"|"p0.png"\n', "must be separated by commas, got bars"),
        ("", "metadata.csv: must begin with the names of the columns, but is empty"),
        ("site,file\n", "metadata.csv: must have a row for each image, but has none"),
        ("site,file,File\na,p0.png,p\n", "column 'file' must occur once, got 2"),
        ("site,file,split\na,p0.png,Dev\n", "got 'Dev'; correct the row"),
        ("site,file,split\na,p0.png,train,x\n", "metadata.csv:2: must have one value per column, got 4 for 3"),
        (f"site,file\na,p0.png\na,p1.png\na,{'x' * 300}.png\n", "file is missing"),
    ],
)
def test_tables_as_people_save_them(tmp_path, text, message):
    write_masks(tmp_path, ("a",))
    (tmp_path / "metadata.csv").write_text(text)
    assert message in refused(tmp_path)


@pytest.mark.parametrize("start", [b"PK\x03\x04binary", b"\xd0\xcf\x11\xe0\0\0", "file,site\n".encode("utf-16")])
def test_a_spreadsheet_is_no_table(tmp_path, start):
    write_masks(tmp_path, ("a",))
    for name in ("metadata.csv", "x.xlsx"):
        (tmp_path / name).write_bytes(start)
    said = "must be a comma-separated UTF-8 table, but is another kind of file; save it as CSV UTF-8"
    assert refused(tmp_path) == f"{tmp_path / 'metadata.csv'}: {said}"
    with pytest.raises(DataError) as error:
        import_federation(tmp_path / "x.xlsx", tmp_path / "new")
    assert str(error.value) == f"{tmp_path / 'x.xlsx'}: {said}"
    assert refused(tmp_path / "x.xlsx").endswith("is another kind of table; save it as comma-separated .csv")


def test_any_case_and_spaces_in_a_header(tmp_path):
    write_masks(tmp_path, ("a",), images=3)
    (tmp_path / "metadata.csv").write_text("Site, FILE ,Fold\na,p0.png,train\na,p1.png,val\na,p2.png,test\n")
    import_federation(tmp_path, tmp_path.parent / f"{tmp_path.name}-new", columns=Columns(split=" fold"))
    records = read_manifest(tmp_path.parent / f"{tmp_path.name}-new/a")
    assert [record.split for record in records] == ["train", "val", "test"]


def test_a_folder_in_place_of_a_table_and_a_file_in_place_of_a_folder(tmp_path):
    write_masks(tmp_path, ("a",))
    (tmp_path / "metadata.csv").mkdir()
    assert "metadata.csv: must be a table, but is a folder" in refused(tmp_path)
    assert "it is a file, not a folder" in refused(tmp_path / "a/images/p0.png")


def test_an_empty_site_beside_masks(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "0").mkdir()
    assert refused(tmp_path).startswith("0: a site must have images, got none")


def test_a_missing_mask_has_no_row(tmp_path):
    write_masks(tmp_path, ("a",))
    (tmp_path / "a/masks/p1.png").unlink()
    assert texts(tmp_path, "error") == ["a/masks/p1.png: mask is missing; add it or move images/p1.png elsewhere"]


def test_mask_volumes_are_guarded_as_well(tmp_path):
    save_volume(tmp_path / "m.nii", np.ones((2, 2, 2), np.complex64))
    with pytest.raises(DataError, match="complex numbers"):
        read_mask(tmp_path / "m.nii")


def test_wrong_numbers_of_images_are_not_all_listed(tmp_path):
    with pytest.raises(DataError, match="at least 6 per site, two for each split, got 3; change it"):
        write_federation(tmp_path / "x", sites=100, images=[9] * 99 + [3])
