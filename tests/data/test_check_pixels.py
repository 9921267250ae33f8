"""Surprises in pixels, near-copies, and what a site tells of itself."""

import folders_on_disk as disk
import numpy as np
import pytest
from folders_on_disk import save, save_volume, texts
from PIL import Image, ImageEnhance

from harmofl.errors import DataError
from harmofl.ingest import check_federation
from harmofl.ingest.inspection.between_sites import between_sites, sizes_differ, spectral_distance
from harmofl.ingest.inspection.site_statistics import SiteFacts, read_facts
from harmofl.report.data_page import render_overview, render_site, write_overview, write_pages

SIDE = 48


def blobs(seed: int, background: int = 200, ink: int = 60) -> np.ndarray:
    """Dark discs on a light ground, so that pictures differ and have a mean and an inside."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = np.full((SIDE, SIDE), background, dtype=np.float64)
    for cy, cx, r in random.uniform((0, 0, 4), (SIDE, SIDE, 9), size=(6, 3)):
        picture[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = ink
    return np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def write_sites(root, sites=("a",), images=10, picture=blobs):
    """Six for training, one for validation, three for testing; masks are the ink."""
    for s, site in enumerate(sites):
        for k in range(images):
            pixels = picture(100 * s + k)
            save(root / site / f"images/p{k}.png", np.stack([pixels] * 3, axis=2))
            save(root / site / f"masks/p{k}.png", np.where(blobs(100 * s + k) < 130, 255, 0).astype(np.uint8))
    split = ["train"] * 6 + ["val"] + ["test"] * (images - 7)
    rows = [{"site": site, "file": f"p{k}.png", "split": split[k]} for site in sites for k in range(images)]
    disk.write_metadata(root, rows)
    return root


def test_a_clean_site_has_no_warnings(tmp_path):
    assert [w for w in texts(write_sites(tmp_path), "warning") if "few" not in w and "only 3 cases" not in w] == []


@pytest.mark.parametrize("how", ["resized", "jpeg", "darker"])
def test_an_image_stored_anew_on_another_side(tmp_path, how):
    root = write_sites(tmp_path)
    image = Image.open(root / "a/images/p2.png")
    if how == "darker":
        ImageEnhance.Brightness(image).enhance(0.7).save(root / "a/images/p8.png")
    elif how == "jpeg":
        (root / "a/images/p8.png").unlink()
        image.save(root / "a/images/p8.jpg", quality=60)
        table = (root / "metadata.csv").read_text().replace("p8.png", "p8.jpg")
        (root / "metadata.csv").write_text(table)
    else:
        image.resize((96, 96)).save(root / "a/images/p8.png")
        Image.open(root / "a/masks/p2.png").resize((96, 96), Image.Resampling.NEAREST).save(root / "a/masks/p8.png")
    suffix = "jpg" if how == "jpeg" else "png"
    expected = f"a/images/p8.{suffix}: is in test and nearly the same as a/images/p2.png in train; remove one of them"
    assert expected in texts(root, "warning", size=(48, 48))


def test_near_copies_are_found_across_sites_and_told_once(tmp_path):
    root = write_sites(tmp_path, ("a", "b"))
    ImageEnhance.Brightness(Image.open(root / "a/images/p1.png")).enhance(0.8).save(root / "b/images/p9.png")
    near = [w for w in texts(root, "warning") if "nearly" in w]
    assert near == ["b/images/p9.png: is in test and nearly the same as a/images/p1.png in train; remove one of them"]


def test_flat_images_are_not_near_copies(tmp_path):
    root = write_sites(tmp_path, picture=lambda seed: np.full((SIDE, SIDE), 90, np.uint8) + np.uint8(seed % 2))
    assert not [w for w in texts(root, "warning") if "nearly" in w]


def test_alpha_exif_and_kinds(tmp_path):
    root = write_sites(tmp_path)
    Image.open(root / "a/images/p0.png").convert("RGBA").save(root / "a/images/p0.png")
    turned = Image.open(root / "a/images/p1.png")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "a/images/p1.png", exif=exif)
    found = texts(root, "warning")
    assert "a/images/p0.png: 1 of 10 images have an alpha channel, which is dropped" in found
    assert any(w.startswith("a/images/p1.png: 1 of 10 images have an EXIF orientation") for w in found)
    assert any("1 of 10 images are RGB with alpha, 8 bit, most are RGB, 8 bit" in w for w in found)


def test_zero_to_one_in_eight_bits_and_twelve_bits_in_sixteen(tmp_path):
    root = write_sites(tmp_path / "low", picture=lambda seed: (blobs(seed) > 130).astype(np.uint8))
    assert any("10 of 10 images hold 0 and 1 only" in w for w in texts(root, "warning"))
    root = write_sites(tmp_path / "deep")
    for k in range(10):
        Image.fromarray(blobs(k).astype(np.uint16) * 16).save(root / f"a/images/p{k}.png")
    assert any("use 12 of their 16 bits" in w for w in texts(root, "warning"))
    for k in range(10):
        Image.fromarray(blobs(k).astype(np.uint16) * 257).save(root / f"a/images/p{k}.png")
    assert not any("16 bits" in w for w in texts(root, "warning"))


def test_an_inverted_image(tmp_path):
    root = write_sites(tmp_path)
    save(root / "a/images/p3.png", 255 - np.asarray(Image.open(root / "a/images/p3.png")))
    found = texts(root, "warning")
    assert (
        "a/images/p3.png: 1 of 10 images look inverted compared with the others of the site; check whether they are"
        in found
    )
    assert any(
        "1 of 10 images have a foreground lighter than its surroundings, the others a darker one" in w for w in found
    )


def write_volumes(root, affines, mask_affines=None):
    for k, affine in enumerate(affines):
        voxels = np.stack([blobs(10 * k + s) for s in range(5)], axis=2)
        save_volume(root / f"images/v{k}.nii.gz", voxels, affine)
        labels = (voxels < 130).astype(np.uint8)
        save_volume(root / f"masks/v{k}.nii.gz", labels, (mask_affines or affines)[k])
    return root


def test_spacing(tmp_path):
    plain, fine = np.diag([0.6, 0.6, 3.0, 1]), np.diag([0.3, 0.3, 3.0, 1])
    assert not [w for w in texts(write_volumes(tmp_path / "x", [plain] * 6), "warning") if "mm" in w or "space" in w]
    found = texts(write_volumes(tmp_path / "y", [plain] * 5 + [fine]), "warning")
    assert any("voxels are 0.30 to 0.60 mm apart along x" in w for w in found)


def test_slices_across_the_planes(tmp_path):
    sagittal = np.array([[0, 0, 3.0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 0, 1]])
    found = texts(write_volumes(tmp_path / "x", [sagittal] * 6), "warning")
    assert any("6 of 6 images are thickest along x or y" in w for w in found)


def test_what_a_site_tells(tmp_path):
    (site,) = check_federation(write_sites(tmp_path)).sites
    assert site.splits["train"].images == 6 and site.splits["test"].classes == {"background": 3, "foreground": 3}
    assert site.kinds == {"RGB, 8 bit": 10} and site.sizes == {"48x48": 10}
    assert sum(site.shares.values()) == pytest.approx(1)
    ink = np.mean([blobs(k) < 130 for k in range(10)])
    assert site.shares["foreground"] == pytest.approx(ink)
    assert site.lighter == 0
    assert np.sum(site.histogram, axis=1) == pytest.approx([1, 1, 1], abs=1e-4)
    mean = np.mean([blobs(k) for k in range(10)]) / 255
    assert site.profile[0][0] == pytest.approx(mean, rel=1e-4)  # zero frequency: the mean level


def test_pages_hold_no_name_of_a_file_or_patient(tmp_path):
    root = write_sites(tmp_path / "in", ("a", "b"))
    for site in "ab":
        save(root / site / "images/p3.png", 255 - np.asarray(Image.open(root / site / "images/p3.png")))
        (root / site / "images/p5.png").write_bytes(b"\x89PNG broken")
    checked = check_federation(root)
    files = write_pages(checked.sites, tmp_path / "pages")
    assert [path.name for path in files] == ["a.json", "a.html", "b.json", "b.html"]
    for path in files:
        text = path.read_text()
        assert "p3" not in text and "p5" not in text and ".png" not in text.replace("image/png", "")
    assert "file that cannot be used" in files[1].read_text()
    assert "Fix the errors before training" in files[1].read_text()
    assert read_facts(files[0]) == checked.sites[0]


def test_facts_that_are_none(tmp_path):
    path = tmp_path / "x.json"
    for text, message in (
        (None, "x.json: cannot be read"),
        ('{"site": "a"}', "x.json: must hold the statistics of a site, but task: Field required"),
        ("{", "Invalid JSON"),
    ):
        if text:
            path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_facts(path)


def changed(facts: SiteFacts, **values) -> SiteFacts:
    return facts.model_copy(update=values)


def test_sites_compared(tmp_path):
    a, b, c = check_federation(write_sites(tmp_path, ("a", "b", "c"))).sites
    assert list(between_sites([a, b, c])) == []
    mirrored = tuple(tuple(reversed(row)) for row in b.histogram)
    dark = tuple((1.0, *[0.0] * 63) for _ in range(3))
    others = [
        changed(b, site="classes", classes=("background", "tumour")),
        changed(b, site="inverted", histogram=mirrored),
        changed(b, site="dark", histogram=dark),
        changed(b, site="light", lighter=1.0),
        changed(b, site="grey", kinds={"grey, 8 bit": 3}),
        changed(b, site="coarse", spacing=((1, 1, 1),) * 3),
    ]
    a, c = changed(a, spacing=((0.5, 0.5, 0.5),) * 3), changed(c, spacing=((0.5, 0.5, 0.5),) * 3)
    for odd, expected in zip(
        others, ("tumour", "inverted one", "far darker", "lighter than", "grey, 8 bit", "x (mm: a 0.50, "), strict=True
    ):
        told = [str(problem) for problem in between_sites([a, odd, c])]
        assert any(expected in line for line in told), (odd.site, told)
        page = render_overview([a, odd, c], list(between_sites([a, odd, c])))
        assert odd.site in page
    small = changed(b, sizes={"8x8": 6, "9x9": 1})
    (told,) = sizes_differ([a, small])
    assert told.severity == "error" and "9x9 at b" in told.message
    assert list(sizes_differ([a, changed(small, resized=True)])) == []
    assert write_overview([a, small], tmp_path / "all.html")[0] == told
    assert spectral_distance(a, b) == pytest.approx(spectral_distance(b, a)) and spectral_distance(a, a) == 0
    assert spectral_distance(a, changed(b, profile=())) is None


def test_a_page_of_a_site_without_readable_images(tmp_path):
    root = write_sites(tmp_path)
    for path in (root / "a/images").iterdir():
        path.write_bytes(b"no")
    (site,) = check_federation(root).sites
    assert "file that cannot be used" in render_site(site)
