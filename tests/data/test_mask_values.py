"""Masks as people have them: the obvious reading and a word about it, or one line that says what to do."""

import numpy as np
import pytest
import tifffile
from folders_on_disk import import_refused, photograph, refused, save, save_volume, texts, write_masks, write_tree
from PIL import Image

from harmofl.data import SPLITS, open_federation
from harmofl.data.decoding.masks import read_numbers
from harmofl.data.manifest import FederationInfo, read_info, write_info
from harmofl.data.mask_numbers import COLOUR
from harmofl.data.summary import said_of_masks
from harmofl.errors import DataError
from harmofl.ingest import find_problems, import_federation

SIDE, IMAGES = 20, 6
RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)


def drawn(number):
    """Labels: a square of 1 and a smaller one of 2, elsewhere in every image."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[2 : 5 + number, 3:9] = 1
    labels[12:17, 10 + number : 15 + number] = 2
    return labels


def write(root, make, suffix=".png", sites=("a", "b"), **options):
    """Two sites; `make` gives the mask of each image, to be saved as the suffix says."""
    for s, site in enumerate(sites):
        for k in range(IMAGES):
            save(root / site / "images" / f"p{k}.png", photograph(100 * s + k, (SIDE, SIDE)))
            path = root / site / "masks" / f"p{k}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            made = make(k)
            if isinstance(made, Image.Image):
                made.save(path, **options)
            elif suffix == ".tif":
                tifffile.imwrite(path, made, **options)
            else:
                Image.fromarray(made).save(path, **options)
    return root


def targets(federation):
    """The label map of every image of the first site, by its name."""
    site = federation.sites[0]
    return {
        case: t for name in SPLITS for case, t in zip(site.split(name).cases, site.split(name).targets, strict=True)
    }


def coloured(*colours):
    return lambda k: np.array(colours, np.uint8)[drawn(k)]


def with_palette(*colours, order=None, **info):
    """The labels as indices of a palette; `order` says at which index each colour is, image by image."""

    def make(k):
        places = list(order(k) if order else range(len(colours)))
        image = Image.fromarray(np.array(places, np.uint8)[drawn(k)], "P")
        image.putpalette(sum((colours[places.index(place)] for place in sorted(places)), ()))
        image.info.update(info)
        return image

    return make


def numbers(*values, kind=np.uint8):
    return lambda k: np.array(values, kind)[drawn(k)]


BINARY, ONE = ("background", "foreground"), (0, 1, 1)
PLAIN, IN_ORDER, TURNED = ("class_0", "class_1", "class_2"), (0, 1, 2), (0, 2, 1)
RED_FIRST, GREEN_FIRST = ("background", "#ff0000", "#00ff00"), ("background", "#00ff00", "#ff0000")
ORDERS = ((0, 1, 2), (2, 1, 0), (1, 0, 2))
SEVERAL = with_palette(BLACK, RED, GREEN, order=lambda k: ORDERS[k % 3])
CLEAR, SOLID = (255, 255, 255, 0), (255, 255, 255, 255)
READ = {  # how masks are made, their suffix; classes, which of them each label drawn becomes, and what is said
    "0 and 128": (numbers(0, 128, 128), ".png", BINARY, ONE, "read by their values: 0 (background), 128 (foreground)"),
    "0 and 254": (numbers(0, 254, 254), ".tif", BINARY, ONE, "0 (background), 254 (foreground)"),
    "1 and 2": (numbers(1, 2, 2), ".png", BINARY, ONE, "1 (background), 2 (foreground)"),
    "0 and 65535": (numbers(0, 65535, 65535, kind=np.uint16), ".png", BINARY, ONE, "65535 (foreground)"),
    "a gap": (numbers(0, 1, 4), ".png", ("class_0", "class_1", "class_4"), IN_ORDER, "values: 0, 1, 4"),
    "from 1 on": (numbers(1, 2, 3), ".png", ("class_1", "class_2", "class_3"), IN_ORDER, "values: 1, 2, 3"),
    "greys": (numbers(0, 85, 170), ".tif", ("class_0", "class_85", "class_170"), IN_ORDER, "values: 0, 85, 170"),
    "16 bit": (numbers(0, 1, 2, kind=np.uint16), ".png", PLAIN, IN_ORDER, ""),
    "32 bit": (numbers(0, 1, 2, kind=np.int32), ".tif", PLAIN, IN_ORDER, ""),
    "floats": (numbers(0, 1, 2, kind=np.float32), ".tif", PLAIN, IN_ORDER, ""),
    "1 bit": (numbers(0, 1, 1, kind=bool), ".png", BINARY, ONE, ""),
    "red": (coloured(BLACK, RED, RED), ".png", BINARY, ONE, "0 (background), #ff0000 (foreground)"),
    "colours": (coloured(BLACK, GREEN, RED), ".png", GREEN_FIRST, IN_ORDER, "0 (background), #00ff00, #ff0000"),
    "deep": (lambda k: coloured(BLACK, GREEN, RED)(k) * np.uint16(257), ".tif", GREEN_FIRST, IN_ORDER, "#00ff00"),
    "palette": (with_palette(BLACK, RED, GREEN), ".png", RED_FIRST, IN_ORDER, "0 (background), #ff0000, #00ff00"),
    "palettes": (SEVERAL, ".png", RED_FIRST, IN_ORDER, "0 (background), #ff0000, #00ff00"),
    "no black": (with_palette(GREEN, RED, WHITE), ".png", ("#00ff00", "#ff0000", "#ffffff"), IN_ORDER, "#00ff00, #ff0"),
    "clear": (with_palette(WHITE, RED, GREEN, transparency=0), ".png", RED_FIRST, IN_ORDER, "12 masks have an alpha"),
    "alpha": (coloured(CLEAR, SOLID, SOLID), ".png", BINARY, ONE, "12 masks have an alpha channel"),
    "black": (coloured((0, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 255)), ".png", BINARY, ONE, "12 masks have an alpha"),
    "both": (coloured((9, 9, 9, 0), (*RED, 255), (*GREEN, 255)), ".png", GREEN_FIRST, TURNED, "12 masks have an alpha"),
    "half": (coloured((*BLACK, 0), (*RED, 99), (*RED, 99)), ".png", BINARY, ONE, "#ff0000 (foreground)"),
    "opaque": (coloured((*BLACK, 255), SOLID, SOLID), ".png", BINARY, ONE, ""),
}


@pytest.mark.parametrize("name", READ)
def test_the_obvious_reading_is_taken_and_said(tmp_path, name):
    make, suffix, classes, becomes, said = READ[name]
    federation = open_federation(write(tmp_path / "in", make, suffix))
    assert federation.info.classes == classes
    found = targets(federation)
    for k in range(IMAGES):
        np.testing.assert_array_equal(found[f"p{k}"], np.array(becomes)[drawn(k)])
    lines = said_of_masks(federation)
    assert bool(lines) == bool(said)
    assert not said or any(said in line for line in lines)
    assert set(lines) <= set(texts(tmp_path / "in", "warning"))
    told = []
    import_federation(tmp_path / "in", tmp_path / "out", warned=told.append)
    assert {f"warning: {line}" for line in lines} <= set(told)
    for case, labels in targets(open_federation(tmp_path / "out")).items():
        np.testing.assert_array_equal(labels, found[case])


def smooth(colour):
    """Discs drawn larger and made smaller, as annotation tools do."""

    def make(k):
        return Image.fromarray(coloured(BLACK, colour, colour)(k)).resize((50, 50)).resize((SIDE, SIDE))

    return make


def cells(k):
    """As many numbered objects as the image's number tells."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for number in range(4 + 2 * k):
        y, x = divmod(number, 5)
        labels[4 * y + 1 : 4 * y + 3, 4 * x + 1 : 4 * x + 3] = number + 1
    return labels


def one_number_an_image(k):
    return (drawn(k) > 1).astype(np.uint8) * np.uint8(k + 1)


IN_DOUBT = {
    "smooth": (smooth(WHITE), ".png", "between others, as left by smoothing"),
    "smooth red": (smooth(RED), ".png", "between others, as left by smoothing"),
    "JPEG": (numbers(0, 255, 255), ".jpg", r"a/masks/p0\.jpg: a mask must not be a JPEG"),
    "coloured JPEG": (coloured(BLACK, RED, GREEN), ".jpg", "a mask must not be a JPEG"),
    "nearly white": (numbers(0, 254, 255), ".png", r"a/masks/p0\.png: a mask must have one number per class, got 254"),
    "cells": (cells, ".png", "masks look like numbered objects .up to 14, each of one piece"),
    "one number an image": (one_number_an_image, ".png", "masks look like numbered objects .up to 6"),
    "a picture": (lambda k: photograph(k, (SIDE, SIDE)), ".png", "between others|values up to"),
    "two foregrounds": (
        lambda k: numbers(0, 100 + 50 * (k % 2), 0)(k),
        ".png",
        r"masks must have the same number for the same class, got 150 in a/masks/p1\.png and 100 in a/masks/p0\.png",
    ),
    "numbers and colours": (
        lambda k: numbers(0, 1, 2)(k) if k % 2 else coloured(BLACK, RED, GREEN)(k),
        ".png",
        r"a/masks/p1\.png: masks must all hold colours or all hold numbers, got 1",
    ),
    "red on white": (coloured(WHITE, RED, RED), ".png", "masks in colours must have a black background"),
    "one-hot colours": (
        coloured((0, 0, 255), RED, GREEN),
        ".png",
        "masks in colours must have a black background",
    ),
    "ignored": (numbers(0, 1, 255), ".png", "labels must be numbered without gaps, got 255 and 0..1"),
    "full": (numbers(7, 7, 7), ".png", "masks must hold a background and a foreground, got 7"),
    "half floats": (numbers(0, 0.5, 1, kind=np.float32), ".tif", "a mask must hold whole numbers, got 0.5"),
    "one colour twice": (
        with_palette(BLACK, BLACK, RED),
        ".png",
        "its palette must have a different colour for each class",
    ),
    "soft alpha": (
        coloured((*BLACK, 0), (*RED, 99), (*RED, 200)),
        ".png",
        "alpha channel must be transparent or opaque",
    ),
    "two masks": (
        coloured((*BLACK, 0), (*WHITE, 0), (*WHITE, 255)),
        ".png",
        "alpha channel and its colours are different masks",
    ),
    "white cut out": (
        coloured((*BLACK, 255), CLEAR, CLEAR),
        ".png",
        "alpha channel and its colours are different masks",
    ),
    "one-hot pages": (
        lambda k: np.stack([drawn(k) == label for label in range(3)]).astype(np.uint8),
        ".tif",
        "must be one image, got a TIFF of 3 pages",
    ),
}


@pytest.mark.parametrize("name", IN_DOUBT)
def test_what_is_in_doubt_is_one_line_everywhere(tmp_path, name):
    make, suffix, message = IN_DOUBT[name]
    options = {"photometric": "minisblack"} if name == "one-hot pages" else {}
    write(tmp_path / "in", make, suffix, **options)
    with pytest.raises(DataError, match=message) as error:
        open_federation(tmp_path / "in")
    assert "\n" not in str(error.value)
    assert find_problems(tmp_path / "in")[0].severity == "error"
    import_refused(tmp_path / "in", tmp_path / "out", message)


def test_a_mask_whose_zero_is_white(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", drawn(0) > 0, photometric="miniswhite")
    np.testing.assert_array_equal(read_numbers(tmp_path / "m.tif").numbers[0], drawn(0) == 0)
    tifffile.imwrite(tmp_path / "m.tif", drawn(0), photometric="miniswhite")
    with pytest.raises(DataError, match="must not be stored with 0 as white"):
        read_numbers(tmp_path / "m.tif")


@pytest.mark.parametrize("make", [lambda m: m, lambda m: np.stack([m] * 3, axis=-1), lambda m: m // 255])
def test_dark_objects_on_white_are_asked_about_site_by_site(tmp_path, make):
    write(tmp_path, lambda k: make(np.where(drawn(k) == 1, 0, 255).astype(np.uint8)), sites=("dark",))
    write(tmp_path, lambda k: make(np.where(drawn(k) == 1, 255, 0).astype(np.uint8)), sites=("a", "b", "c"))
    (said,) = said_of_masks(open_federation(tmp_path))
    assert said.startswith("dark: 0 is the background, but ") and " is along the edges of 6 of 6 masks; if" in said


def test_a_background_that_is_not_the_lowest_of_three_numbers_is_asked_about(tmp_path):
    write(tmp_path, lambda k: (drawn(k) + 2).astype(np.uint8) % 3, sites=("a",))
    (said,) = said_of_masks(open_federation(tmp_path))
    assert said.startswith("a: 0 is the background, but 2 is along the edges of 6 of 6 masks; if that is what")


def test_one_number_for_objects_at_each_site_but_not_the_same(tmp_path):
    for site, number in (("a", 1), ("b", 2)):
        write(tmp_path, lambda k, number=number: (drawn(k) == 1) * np.uint8(number), sites=(site,))
    said = " ".join(said_of_masks(open_federation(tmp_path)))
    assert "sites use different numbers for their objects (1 at a; 2 at b); if they are the same classes, use" in said


def test_numbers_of_a_site_that_no_other_has_and_of_masks_by_turns(tmp_path):
    write(tmp_path / "sites", drawn, sites=("a",))
    write(tmp_path / "sites", lambda k: drawn(k) * np.uint8(100), sites=("b",))
    said = " ".join(said_of_masks(open_federation(tmp_path / "sites")))
    assert "sites use different numbers for their objects (1, 2 at a; 100, 200 at b)" in said
    write(tmp_path / "turns", lambda k: (drawn(k) == 1) * np.uint8(1 + k % 2))
    said = " ".join(said_of_masks(open_federation(tmp_path / "turns")))
    assert "each mask has one number for its objects, but not the same (1 in b/masks/p4.png, 2 in" in said


def test_some_dark_masks_among_light_ones_are_asked_about(tmp_path):
    write(tmp_path, lambda k: np.where((drawn(k) == 1) == (k < 3), 255, 0).astype(np.uint8), sites=("a",))
    (said,) = said_of_masks(open_federation(tmp_path))
    assert "255 is along the edges of 3 of 6 masks" in said


def test_a_few_numbered_objects_are_asked_about(tmp_path):
    def counted(k):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for number in range(1 + k % 3):
            labels[2:5, 1 + 6 * number : 5 + 6 * number] = number + 1
        return labels

    write(tmp_path, counted)
    assert any(line.startswith("masks look like numbered objects (up to 3") for line in texts(tmp_path, "warning"))


def test_colours_without_black_have_one_background_whatever_their_palette(tmp_path):
    colours = [(255, 0, 0), WHITE]
    for name, order in (("one", (0, 1)), ("other", (1, 0))):
        palette = [colours[k] for k in order]

        def make(k, palette=palette):
            red = drawn(k) == 1
            image = Image.fromarray(
                np.where(red, palette.index((255, 0, 0)), palette.index(WHITE)).astype(np.uint8), "P"
            )
            image.putpalette([value for colour in palette for value in colour])
            return image

        write(tmp_path / name, make)
        federation = open_federation(tmp_path / name)
        assert federation.info.values == (255, COLOUR + 0xFF0000)
        assert [int(labels.sum()) for labels in federation.sites[0].test.targets] == [
            int((drawn(int(case[1:])) == 1).sum()) for case in federation.sites[0].test.cases
        ]


def test_an_alpha_mask_with_nothing_in_it(tmp_path):
    for colour in (WHITE, BLACK, RED):
        save(tmp_path / "m.png", np.full((4, 4, 4), (*colour, 0), np.uint8))
        assert not read_numbers(tmp_path / "m.png").numbers.any()


def test_classes_with_names_are_no_numbered_objects(tmp_path):
    write(tmp_path / "in", one_number_an_image)
    names = ("ground", *"uvwxyz")
    assert import_federation(tmp_path / "in", tmp_path / "out", classes=names).classes == names
    assert {int(t.max()) for t in targets(open_federation(tmp_path / "out")).values()} == {1, 2, 3, 4, 5, 6}


def test_volumes_of_numbered_objects_and_of_organs(tmp_path):
    """Organs are the same in most patients; objects are counted."""
    for k in range(IMAGES):
        for kind, count in (("objects", 4 + 2 * k), ("organs", 8)):
            labels = np.zeros((6, 6, 32), np.uint8)
            for number in range(count):
                labels[1:4, 1:4, 2 * number] = number + 1
            save_volume(tmp_path / kind / f"a/images/v{k}.nii.gz", np.random.default_rng(k).random(labels.shape))
            save_volume(tmp_path / kind / f"a/masks/v{k}.nii.gz", labels)
    assert "masks look like numbered objects" in refused(tmp_path / "objects")
    assert len(open_federation(tmp_path / "organs").info.classes) == 9


def test_masks_read_for_a_model_that_is_there(tmp_path):
    """A site that lacks some classes reads the others as the model does, by the names that they got in training."""
    gap = ("segmentation", ("class_0", "class_1", "class_2", "class_4"))
    federation = open_federation(write(tmp_path / "gap", numbers(0, 4, 4)), expected=gap)
    assert (federation.info.classes, federation.info.values) == (gap[1], (0, 1, 2, 4))
    assert {int(t.max()) for t in targets(federation).values()} == {3}
    colours = ("segmentation", ("background", "#0000ff", "#ff0000"))
    federation = open_federation(write(tmp_path / "red", coloured(BLACK, RED, RED)), expected=colours)
    assert {int(t.max()) for t in targets(federation).values()} == {2}
    two = ("segmentation", ("rest", "cell"))
    federation = open_federation(write(tmp_path / "two", numbers(0, 128, 128)), expected=two)
    assert (federation.info.classes, federation.info.values) == (two[1], (0, 128))


def test_values_in_the_file(tmp_path):
    info = FederationInfo("n", "segmentation", ("a", "b", "c"), 3, values=(0, 128, (1 << 24) + 0xFF8000))
    write_info(tmp_path, info)
    assert 'values = [\n    0,\n    128,\n    "#ff8000",\n]' in (tmp_path / "federation.toml").read_text()
    assert read_info(tmp_path) == info
    for values, message in (
        ([0, 1], "one value per class, got 2"),
        ([0, 0, 1], "list of different"),
        (["red"], "list of"),
    ):
        table = f'task = "segmentation"\nclasses = ["a", "b", "c"]\nchannels = 1\nvalues = {values}'
        (tmp_path / "federation.toml").write_text(table)
        with pytest.raises(DataError, match=message):
            read_info(tmp_path)


def test_values_that_the_file_does_not_have(tmp_path):
    write_tree(tmp_path, values=(0, 128))
    assert "mask masks/p0.png: labels must be 0, 128, got 255" in refused(tmp_path)


def test_several_masks_of_one_image(tmp_path):
    write_masks(tmp_path, ("a",))
    (tmp_path / "a/masks/p1.png").rename(tmp_path / "a/masks/p1_mask_1.png")
    save(tmp_path / "a/masks/p1_mask_2.png", np.zeros((8, 8), np.uint8))
    message = "a/masks/p1.png: mask is missing, but there is p1_mask_1.png and 1 more; merge them into one mask"
    assert refused(tmp_path).startswith(message)


def turned_tiff(path, pixels, orientation):
    path.unlink(missing_ok=True)
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="rgb" if pixels.ndim == 3 else None, extratags=tags)


def test_images_and_masks_that_ask_to_be_turned_together_or_apart(tmp_path):
    write_tree(tmp_path)
    write_masks(tmp_path, ("a",), images=6)
    plain = targets(open_federation(tmp_path / "a"))
    for place, pixels in (("images", photograph(0)), ("masks", np.asarray(Image.open(tmp_path / "a/masks/p0.png")))):
        turned_tiff(tmp_path / f"a/{place}/p0.png", pixels, 3)
    table = (tmp_path / "a/manifest.csv").read_text().replace("p0.png", "p0.tif")
    (tmp_path / "a/manifest.csv").write_text(table)
    np.testing.assert_array_equal(targets(open_federation(tmp_path / "a"))["p0"], plain["p0"])
    turned_tiff(tmp_path / "a/images/p0.tif", photograph(0), 6)
    message = (
        "a/images/p0.tif: mask masks/p0.tif: has orientation tag 3, its image 6; store both with the same orientation"
    )
    assert message in refused(tmp_path / "a")


def test_a_mask_of_the_turned_image(tmp_path):
    write_tree(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(0, (8, 12))).save(tmp_path / "a/images/p0.png", exif=exif)
    save(tmp_path / "a/masks/p0.png", np.zeros((12, 8), np.uint8))
    message = "mask p0.png is 12x8 (height x width), image is 8x12; the mask fits the image as its orientation tag (6)"
    assert message in refused(tmp_path, size=(8, 8))
