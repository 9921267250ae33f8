"""Photographs against values computed by hand: bits, planes, photometric meaning, byte order, orientation."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from folders_on_disk import photograph, texts, write_masks
from PIL import Image

from harmofl.data import open_federation
from harmofl.data.decoding.images import read_header, read_image, with_channels
from harmofl.data.decoding.photographs import read_stored
from harmofl.errors import DataError

SHAPE = (5, 7)


def packed(rows, bits, order):
    """Rows of samples as TIFF and PNG store them: whole bytes in byte order, else from the highest bit on."""
    if bits in (8, 16, 32):
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    digits = (rows[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row.astype(np.uint8)).tobytes() for row in digits.reshape(len(rows), -1)]


def write_tiff(path, samples, bits, *, order="<", photometric=1, separate=False, orientation=1, extra=0):
    """An uncompressed TIFF 6.0 of (H, W) or (H, W, planes) samples, one strip a plane."""
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width, planes = samples.shape
    parts = np.moveaxis(samples, 2, 0) if separate else [samples.reshape(height, -1)]
    strips = [b"".join(packed(part, bits, order)) for part in parts]
    strips = [strip + b"\0" * (len(strip) % 2) for strip in strips]
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    tags = {256: [width], 257: [height], 258: [bits] * planes, 259: [1], 262: [photometric], 273: starts[:-1]}
    tags |= {274: [orientation], 277: [planes], 278: [height], 279: [len(strip) for strip in strips]}
    tags |= {284: [2 if separate else 1]} | ({338: [extra]} if extra else {})
    entries, beyond = b"", b""
    at = starts[-1] + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}L", *values)
        entries += struct.pack(f"{order}HHL", tag, 4, len(values))
        entries += data if len(values) == 1 else struct.pack(f"{order}L", at + len(beyond))
        beyond += data if len(values) > 1 else b""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, starts[-1])
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}L", 0)
    path.write_bytes(head + b"".join(strips) + directory + beyond)


def chunk(kind, data):
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def write_png(path, samples, bits, colour_type, before=b"", after=b""):
    """A PNG of (H, W, planes) samples without filters, with chunks before and after the pixels."""
    height, width = samples.shape[:2]
    rows = packed(samples.reshape(height, -1), bits, ">")
    header = struct.pack(">LLBBBBB", width, height, bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def drawn(bits, planes):
    return np.random.default_rng(bits + planes).integers(0, 2**bits, size=(*SHAPE, planes))


def levels(path):
    planes = read_image(path)
    return planes / 255 if planes.dtype == np.uint8 else planes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    ("planes", "photometric", "extra"),
    [(1, 0, 0), (1, 1, 0), (2, 0, 2), (2, 1, 2), (3, 2, 0), (4, 2, 2)],
    ids=["white is zero", "grey", "white is zero, alpha", "grey, alpha", "RGB", "RGB, alpha"],
)
def test_tiff(tmp_path, order, bits, planes, photometric, extra):
    samples = drawn(bits, planes)
    want = np.moveaxis(samples[..., : 3 if planes > 2 else 1], 2, 0) / (2**bits - 1)
    for separate in (False, True):
        write_tiff(
            tmp_path / "x.tif", samples, bits, order=order, photometric=photometric, separate=separate, extra=extra
        )
        np.testing.assert_allclose(levels(tmp_path / "x.tif"), want if photometric else 1 - want, atol=1e-7)
    header = read_header(tmp_path / "x.tif")
    assert (header.size, header.colour, header.alpha) == (SHAPE, planes > 2, extra > 0)
    assert f"{16 if bits > 8 else 8} bit" in header.kind


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("planes", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_png(tmp_path, bits, planes, colour_type):
    if bits < 8 and planes > 1:
        return  # there is none such
    samples = drawn(bits, planes)
    write_png(tmp_path / "x.png", samples, bits, colour_type)
    want = np.moveaxis(samples[..., : 3 if planes > 2 else 1], 2, 0) / (2**bits - 1)
    np.testing.assert_allclose(levels(tmp_path / "x.png"), want, atol=1e-7)
    header = read_header(tmp_path / "x.png")
    assert (header.colour, header.alpha, header.kind.split(",")[0].startswith("RGB")) == (
        planes > 2,
        planes in (2, 4),
        planes > 2,
    )
    assert f"{16 if bits > 8 else 8} bit" in header.kind


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "zstd"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_compressed_tiff(tmp_path, compression, tile):
    samples = np.random.default_rng(3).integers(0, 65536, size=(33, 20, 3)).astype(np.uint16)
    options = {"photometric": "rgb", "compression": compression, "tile": tile, "predictor": compression == "lzw"}
    for order in "<>":
        tifffile.imwrite(tmp_path / "x.tif", samples, byteorder=order, **options)
        np.testing.assert_allclose(levels(tmp_path / "x.tif"), np.moveaxis(samples, 2, 0) / 65535, atol=1e-7)


def test_jpeg_in_tiff(tmp_path):
    samples = np.add.outer(np.arange(32), np.arange(48) * 2).astype(np.uint8)[..., None] + np.array(
        [0, 40, 90], np.uint8
    )
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", compression="jpeg")
    assert np.abs(levels(tmp_path / "x.tif") - np.moveaxis(samples, 2, 0) / 255).max() < 0.03


@pytest.mark.parametrize("scale", [1, 256, 257])
def test_tiff_palette(tmp_path, scale):
    colours = np.random.default_rng(5).integers(0, 256, size=(3, 256)).astype(np.uint16)
    samples = drawn(8, 1)[..., 0].astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="palette", colormap=colours * scale)
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), colours[:, samples])


def test_cmyk_tiff(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 255], [0, 0, 51, 0]]], np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", inks, photometric="separated")
    want = [[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 255, 204]]
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif")[:, 0].T, want)


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (np.zeros(SHAPE, np.float16), {}, "must be 8 or 16 bit, got 16-bit floats"),
        (np.full(SHAPE, -3, np.int16), {}, r"must be 8 or 16 bit, got -3\.\.-3"),
        (np.full(SHAPE, 3, np.int8), {}, r"must be 8 or 16 bit, got 3\.\.3 \(int8\)"),
        (np.full(SHAPE, 70000, np.uint32), {}, r"must be 8 or 16 bit, got 70000\.\.70000"),
        (
            np.zeros((*SHAPE, 3), np.uint8),
            {"photometric": "cielab"},
            "must be grey, RGB, CMYK or a palette, got CIELAB",
        ),
        (np.zeros((*SHAPE, 3), np.uint8), {"photometric": "ycbcr"}, "must be grey, RGB, CMYK or a palette, got YCBCR"),
        (
            np.zeros((*SHAPE, 5), np.uint8),
            {"photometric": "minisblack", "planarconfig": "contig"},
            "must have 1 planes to be grey, got 5",
        ),
        (
            np.full((*SHAPE, 4), 9, np.uint8),
            {"photometric": "rgb", "extrasamples": ["assocalpha"]},
            "half-transparent pixels must not be premultiplied by alpha",
        ),
        (np.zeros((3, *SHAPE), np.uint8), {"imagej": True}, "must be one image, got a TIFF of 3 pages"),
    ],
)
def test_tiffs_that_are_not_read_exactly(tmp_path, samples, options, message):
    tifffile.imwrite(tmp_path / "x.tif", samples, **options)
    with pytest.raises(DataError, match=message) as error:
        read_image(tmp_path / "x.tif")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_damaged_tiffs(tmp_path, capfd, compression):
    tifffile.imwrite(tmp_path / "x.tif", drawn(8, 3).astype(np.uint8), photometric="rgb", compression=compression)
    content = (tmp_path / "x.tif").read_bytes()
    for cut in (3, 9, 60, len(content) - 9, len(content) - 1):
        (tmp_path / "x.tif").write_bytes(content[:cut])
        with pytest.raises(DataError, match="cannot be read"):
            read_image(tmp_path / "x.tif")
    assert capfd.readouterr().err == ""


def test_a_huge_tiff_takes_no_memory(tmp_path):
    write_tiff(tmp_path / "x.tif", drawn(8, 1), 8)
    content = bytearray((tmp_path / "x.tif").read_bytes())
    at = content.index(struct.pack("<HHLL", 256, 4, 1, SHAPE[1]))
    content[at : at + 24] = struct.pack("<HHLLHHLL", 256, 4, 1, 10**6, 257, 4, 1, 10**6)
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(DataError, match="must have at most"):
        read_image(tmp_path / "x.tif")


def test_deep_colours_become_grey():
    planes = np.array([1, 0.5, 0.25], np.float32).reshape(3, 1, 1)
    np.testing.assert_allclose(with_channels(planes, 1), [[[0.299 + 0.587 / 2 + 0.114 / 4]]], rtol=1e-6)


def test_twelve_bits_in_sixteen_bit_colours_are_kept_and_told(tmp_path):
    write_masks(tmp_path, ("a",))
    for k in range(6):
        tifffile.imwrite(tmp_path / f"a/images/p{k}.tif", photograph(k).astype(np.uint16) * 16, photometric="rgb")
        (tmp_path / f"a/images/p{k}.png").unlink()
    train = open_federation(tmp_path).sites[0].train
    assert len(np.unique(train.images)) > 200
    assert any("use 12 of their 16 bits" in line for line in texts(tmp_path, "warning"))


def write_turned(path, pixels, orientation):
    """The pixels in any format, with the tag that asks viewers to turn them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if path.suffix == ".tif":
        write_tiff(path, pixels, 8, photometric=2, orientation=orientation)
    else:
        Image.fromarray(pixels).save(path, exif=exif, **({"quality": 100} if path.suffix == ".jpg" else {}))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_pixels_are_used_as_stored_whatever_the_orientation(tmp_path, suffix, orientation):
    pixels = np.repeat(np.repeat(np.arange(35, dtype=np.uint8).reshape(*SHAPE, 1) * 7, 8, axis=0), 8, axis=1)
    pixels = np.repeat(pixels, 3, axis=2)
    write_turned(tmp_path / f"x{suffix}", pixels, orientation)
    assert np.abs(read_image(tmp_path / f"x{suffix}") - np.moveaxis(pixels, 2, 0).astype(float)).max() <= 2
    header = read_header(tmp_path / f"x{suffix}")
    assert (header.size, header.orientation) == ((40, 56), orientation)


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))


XMP = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')


@pytest.mark.parametrize(
    ("before", "after", "orientation"),
    [
        (exif_of(6), b"", 6),
        (b"", exif_of(6), 6),
        (exif_of(1), exif_of(6), 6),
        (XMP, b"", 6),
        (b"", XMP, 6),
        (exif_of(0), b"", 1),
        (exif_of(9), b"", 1),
        (chunk(b"tEXt", b"Comment\0no exif here"), b"", 1),
    ],
)
def test_the_orientation_of_a_png(tmp_path, before, after, orientation):
    write_png(path := tmp_path / "x.png", np.zeros((8, 12)), 8, 0, before, after)
    assert read_header(path).orientation == read_stored(path).orientation == orientation


def test_damaged_metadata_are_named(tmp_path):
    write_png(path := tmp_path / "x.png", np.zeros((8, 12)), 8, 0, chunk(b"eXIf", b"garbage!garbage!"))
    for read in (read_header, read_image):
        with pytest.raises(DataError, match="its EXIF data are damaged; save it again without them"):
            read(path)


def test_the_header_of_a_png_without_orientation_is_read_without_its_pixels(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(tmp_path / "x.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    assert read_header(tmp_path / "x.png").orientation == 1
