from dataclasses import replace

import numpy as np
import pytest
from folders_on_disk import (
    mask,
    photograph,
    records_of,
    refused,
    save,
    texts,
    write_classes,
    write_masks,
    write_metadata,
    write_tree,
)
from PIL import Image

from harmofl.data import SPLITS, open_federation
from harmofl.data.manifest import FederationInfo, Record, read_info, read_manifest, write_info, write_manifest
from harmofl.errors import ConfigError, DataError
from harmofl.experiment.config import load_experiment
from harmofl.experiment.trainer import run
from harmofl.ingest import find_problems, import_federation


def test_missing_image_and_mask(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "a/images/p1.png").unlink()
    (tmp_path / "a/masks/p2.png").unlink()
    message = refused(tmp_path)
    assert message.startswith("a/images/p1.png: file is missing; restore it or delete its row")
    assert message.endswith(f"(and 1 more; run `harmofl data check {tmp_path}` for all)")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_image(tmp_path, content):
    write_tree(tmp_path)
    path = tmp_path / "a/images/p1.png"
    path.write_bytes(path.read_bytes()[:120] if content is None else content)
    assert refused(tmp_path).startswith("a/images/p1.png: cannot be read (")


def test_truncated_jpeg(tmp_path):
    write_tree(tmp_path)
    path = tmp_path / "a/images/p1.jpg"
    Image.fromarray(photograph(1, (64, 64))).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    save(tmp_path / "a/masks/p1.png", mask(1, (64, 64)))
    records = [replace(r, image="images/p1.jpg") if r.patient == "p1" else r for r in records_of()]
    write_manifest(tmp_path / "a", records)
    assert refused(tmp_path, size=(8, 8)).startswith("a/images/p1.jpg: cannot be read (")


def test_mask_of_another_size(tmp_path):
    write_tree(tmp_path)
    save(tmp_path / "a/masks/p0.png", mask(0, (9, 8)))
    assert "a/images/p0.png: mask p0.png is 9x8 (height x width), image is 8x8" in refused(tmp_path)


@pytest.mark.parametrize("value", [2, 7, 254])
def test_label_outside_two_classes(tmp_path, value):
    write_tree(tmp_path)
    pixels = mask(0)
    pixels[3, 3] = value
    save(tmp_path / "a/masks/p0.png", pixels)
    message = refused(tmp_path)
    assert f"a/images/p0.png: mask masks/p0.png: labels must be 0 and 1 (or 0 and 255), got {value}" in message


def test_odd_label_does_not_make_hundreds_of_classes(tmp_path):
    write_masks(tmp_path)
    pixels = mask(0)
    pixels[3, 3] = 7
    save(tmp_path / "a/masks/p0.png", pixels)
    assert "got 7" in refused(tmp_path)


def test_label_outside_three_classes(tmp_path):
    write_tree(tmp_path, classes=("a", "b", "c"))
    assert "labels must be 0..2, got 255" in refused(tmp_path)


def test_coloured_mask(tmp_path):
    write_tree(tmp_path)
    save(tmp_path / "a/masks/p0.png", photograph(0))
    assert "mask masks/p0.png: a mask must be grey with one number per pixel" in refused(tmp_path)


def test_grey_mask_stored_as_rgb_is_read(tmp_path):
    write_tree(tmp_path)
    save(tmp_path / "a/masks/p0.png", np.repeat(mask(0)[..., None], 3, axis=2))
    assert open_federation(tmp_path).sites[0].train.targets.max() == 1


def test_unknown_class_name(tmp_path):
    records = [replace(record, target="bird") for record in records_of()]
    write_tree(tmp_path, records, task="classification", classes=("cat", "dog"))
    assert "a/images/p0.png: label must be one of cat, dog, got 'bird'" in refused(tmp_path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [replace(r, patient="zoe") if r.patient in ("p0", "p5") else r for r in records_of()],
            "a: patient 'zoe' must be in one split, got train and test",
        ),
        ([*records_of(), records_of()[0]], "a/images/p0.png: an image must have one row, got 2"),
        (
            [r for r in records_of() if r.split != "val"],
            "a: train, val and test must each have images, got none in val",
        ),
        ([], "a: a site must have images, got none"),
        (
            [replace(records_of()[0], image="../b/images/p0.png"), *records_of()[1:]],
            "a/../b/images/p0.png: a file must be inside its site's folder",
        ),
    ],
)
def test_rows_that_do_not_hold(tmp_path, records, message):
    write_masks(tmp_path, ("b",))
    assert refused(write_tree(tmp_path, records)).startswith(message)


def test_empty_site_folder(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "c" / "cat").mkdir(parents=True)
    assert refused(tmp_path).startswith("c: a site must have images, got none")


def test_folder_of_other_files_is_no_site(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "read.txt").write_text("x")
    assert len(open_federation(tmp_path).sites) == 2


@pytest.mark.parametrize("images", [1, 2])
def test_too_few_patients_to_split_are_for_testing(tmp_path, images):
    write_masks(tmp_path / "in", ("a",), images=images)
    write_masks(tmp_path / "in", ("b",))
    said = "a: fewer than 3 patients cannot be split, so all are for testing; add some to train there"
    assert said in texts(tmp_path / "in", "warning")
    import_federation(tmp_path / "in", tmp_path / "new")
    for folder in ("in", "new"):
        a, b = open_federation(tmp_path / folder).sites
        assert [len(a.split(name)) for name in SPLITS] == [0, 0, images]
        assert all(len(b.split(name)) for name in SPLITS)
    with pytest.raises(
        ConfigError, match=r"a: a site that trains .* for testing \(a split needs at least 3 patients\)"
    ):
        run(load_experiment(None, {"data.folder": str(tmp_path / "in")}), tmp_path / "run")


def test_too_few_patients_to_draw_a_side_that_folders_do_not_tell(tmp_path):
    for split, images in (("train", 2), ("test", 4)):
        for k in range(images):
            for name, pixels in (("images", photograph(k)), ("masks", mask(k))):
                save(tmp_path / f"a/{split}/{name}/{split}{k}.png", pixels)
    assert refused(tmp_path) == "a: a split needs at least 3 patients, got 2; add some, or give the split of each"


def test_labels_that_are_not_those_of_a_model(tmp_path):
    write_classes(tmp_path)
    told = []
    with pytest.raises(DataError) as error:
        open_federation(tmp_path, expected=("classification", ("Cat", "mouse")), told=told.append)
    assert str(error.value) == (
        "a/cat/cat0.png: label must be one of Cat, mouse, got 'cat' (6 images); rename its folder to Cat (and 3 more)"
    )
    others = [line for line in told if line.startswith("error")]
    assert others[0] == (
        "error: a/dog/dog0.png: label must be one of Cat, mouse, got 'dog' (6 images); rename its folder or the "
        "classes, or remove it from the folder"
    )
    assert len(others) == 3


@pytest.mark.parametrize(("wanted", "got"), [("catanddog", "cat and dog"), ("Cat anddog", "cat and Dog "), ("7", "07")])
def test_a_label_that_is_a_models_but_for_spaces_or_zeros(tmp_path, wanted, got):
    write_classes(tmp_path, ("a",))
    (tmp_path / "a/cat").rename(tmp_path / "a" / got)
    message = refused(tmp_path, expected=("classification", (wanted, "dog")))
    assert message.endswith(f"got {got!r} (6 images); rename its folder to {wanted}")


def test_sites_without_images_that_are_seen(tmp_path):
    write_masks(tmp_path)
    for path in (tmp_path / "b").rglob("*.png"):
        path.rename(path.with_name(f".{path.name}"))
    message = refused(tmp_path)
    assert "b: a site must have images, got none; hidden files such as images/.p0.png are not read, rename" in message
    assert not [line for line in texts(tmp_path, "warning") if line.startswith("b:")]


def test_what_cannot_be_read_may_show_the_classes(tmp_path):
    write_classes(tmp_path)
    for path in (tmp_path / "a/dog").iterdir():
        path.write_bytes(b"x")
    assert len(texts(tmp_path, "error")) == 6
    assert not [line for line in texts(tmp_path, "warning") if "absent" in line]


def test_no_sites_explains_the_layouts(tmp_path):
    message = refused(tmp_path)
    assert "no site found; a federation is federation.toml with <site>/manifest.csv, or" in message
    assert "no such folder" in refused(tmp_path / "nowhere")
    write_info(tmp_path, FederationInfo("t", "segmentation", ("b", "f"), 1))
    assert "no site found" in refused(tmp_path)


def test_images_without_masks(tmp_path):
    save(tmp_path / "a" / "images" / "x.png", photograph(0))
    assert "has images/ but no masks/ or labels/" in refused(tmp_path)


def test_two_tasks(tmp_path):
    write_masks(tmp_path, ("a",))
    write_classes(tmp_path, ("b",))
    assert "all sites must have one task, but a is segmentation and b is classification" in refused(tmp_path)


def test_two_sizes(tmp_path):
    write_tree(tmp_path)
    save(tmp_path / "a/images/p4.png", photograph(4, (8, 10)))
    save(tmp_path / "a/masks/p4.png", mask(4, (8, 10)))
    message = refused(tmp_path)
    assert "a/images/p0.png is 8x8 (height x width) but a/images/p4.png is 8x10" in message
    assert "with --size or data.size" in message
    assert open_federation(tmp_path, size=(8, 8)).info.size == (8, 8)
    (tmp_path / "a/masks/p4.png").unlink()  # it cannot be inspected, and its size is still found
    told = [problem.message for problem in find_problems(tmp_path) if problem.severity == "error"]
    assert len(told) == 2 and "a/images/p0.png is 8x8 (height x width) but a/images/p4.png is 8x10" in told[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8)}, "size must be"),
        ({"channels": 2}, "channels must be 1 or 3"),
        ({"channels": 0}, "1 or 3"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        open_federation(write_tree(tmp_path), **options)


def test_five_channels_need_volumes(tmp_path):
    assert "a photograph has 1 or 3 channels, got 5" in refused(write_tree(tmp_path), channels=5)


def test_multipage_and_float_tiffs(tmp_path):
    write_tree(tmp_path)
    pages = [Image.fromarray(photograph(i)) for i in range(2)]
    pages[0].save(tmp_path / "a/images/x.tif", save_all=True, append_images=pages[1:])
    write_manifest(tmp_path / "a", [replace(records_of()[0], image="images/x.tif"), *records_of()[1:]])
    assert "must be one image, got a TIFF of 2 pages" in refused(tmp_path)
    save(tmp_path / "a/images/x.tif", np.zeros((8, 8), np.float32))
    assert "pixels must be 8 or 16 bit, got 32-bit floats" in refused(tmp_path)
    save(tmp_path / "a/images/x.tif", np.full((8, 8), 70000, np.int32))
    assert "pixels must be 8 or 16 bit, got 70000..70000" in refused(tmp_path)


def test_unsupported_suffix(tmp_path):
    write_tree(tmp_path, [replace(records_of()[0], image="images/x.bmp"), *records_of()[1:]])
    Image.fromarray(photograph(0)).save(tmp_path / "a/images/x.bmp")
    assert "must be PNG, JPEG, TIFF or NIfTI" in refused(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"site": "z", "file": "p0.png"}], "metadata.csv:2: site must be a folder here (a, b), got 'z'"),
        ([{"file": "p0.png"}], "got no such column; add a column site"),
        ([{"site": "a", "name": "p0.png"}], "column 'file' is missing; the columns are site, name"),
        ([{"site": "a", "file": "p0.png", "split": "dev"}], "split must be train, val or test, got 'dev'"),
        (
            [{"site": "a", "file": f"p{k}.png", "split": "dev"} for k in range(2)],
            "correct the row (2 rows have such faults)",
        ),
        ([{"site": "a", "file": "p0.png", "group": ""}], "metadata.csv:2: group is empty"),
    ],
)
def test_malformed_metadata(tmp_path, rows, message):
    write_masks(tmp_path)
    write_metadata(tmp_path, rows)
    assert message in refused(tmp_path)


def test_metadata_must_be_text(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"site,file\na,\xff\xfe.png\n")
    assert "must be a comma-separated UTF-8 table" in refused(tmp_path)


def test_a_name_without_suffix_that_is_of_two_files(tmp_path):
    write_masks(tmp_path, ("a",))
    save(tmp_path / "a/images/p0.jpg", photograph(9))
    write_metadata(tmp_path, [{"file": f"p{k}"} for k in range(6)])
    assert refused(tmp_path) == (
        "a/p0: metadata.csv must name one file, but there are images/p0.jpg and images/p0.png; add the suffix there"
    )


def test_metadata_names_a_missing_file(tmp_path):
    write_masks(tmp_path, ("a",), images=4)
    rows = [{"file": f"p{i}.png", "split": s} for i, s in enumerate(("train", "val", "test"))]
    write_metadata(tmp_path, [*rows, {"file": "gone.png", "split": "train"}])
    assert refused(tmp_path).startswith("a/images/gone.png: file is missing")


def test_flat_images_without_label(tmp_path):
    for i in range(3):
        save(tmp_path / "a" / f"{i}.png", photograph(i))
    assert "no site found" in refused(tmp_path)
    save(tmp_path / "a" / "cat" / "c.png", photograph(9))
    assert "a/0.png: its class is unknown" in refused(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task", '"detection"', "task must be classification or segmentation, got 'detection'"),
        ("classes", '["a", "a"]', "classes must be a list of 2 to 255 different names"),
        ("channels", "2", "channels must be 1 or 3"),
        ("size", "[0, 8]", "size must be"),
        ("slices", '"some"', "slices must be all, foreground or inner, got 'some'"),
        ("name", "3", "name must be a string"),
        ("colour", "1", "unknown key 'colour'; known keys are"),
    ],
)
def test_federation_toml_values(tmp_path, key, value, message):
    table = {"task": '"segmentation"', "classes": '["a", "b"]', "channels": "1", key: value}
    (tmp_path / "federation.toml").write_text("\n".join(f"{k} = {v}" for k, v in table.items()))
    with pytest.raises(DataError) as error:
        read_info(tmp_path)
    assert message in str(error.value)


def test_federation_toml_round_trip(tmp_path):
    for size in (None, (3, 4)):
        info = FederationInfo("n", "segmentation", ("a", "b"), 3, size, "foreground", "images", "here", "CC0")
        write_info(tmp_path, info)
        assert read_info(tmp_path) == info


def test_federation_toml_missing_or_broken(tmp_path):
    for text, message in (
        (None, "no such file"),
        ("task = ", "must be TOML"),
        ("channels = 1", "the key 'task' is missing"),
    ):
        if text:
            (tmp_path / "federation.toml").write_text(text)
        with pytest.raises(DataError, match=message):
            read_info(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,target,patient\n", "column 'split' is missing"),
        ("image,target,patient,split\nx.png,,p,train\n", "manifest.csv:2: target is empty"),
        ("image,target,patient,split\nx.png,y,p,dev\n", "manifest.csv:2: split must be train, val or test"),
    ],
)
def test_malformed_manifest(tmp_path, text, message):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)


def test_manifest_case_defaults_to_patient(tmp_path):
    (tmp_path / "manifest.csv").write_text("image,target,patient,split\nx.png,y,p,val\n")
    assert read_manifest(tmp_path) == [Record("x.png", "y", "p", "p", "val")]
    with pytest.raises(DataError, match="no such file"):
        read_manifest(tmp_path / "nowhere")
