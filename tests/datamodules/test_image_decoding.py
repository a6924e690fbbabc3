"""Pictures of known content, as every format and depth writes them, and the pixels that must come out."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_poison.datamodules.image_folder import ImageFiles
from lightning_poison.errors import UserError

SIDE = 4
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
WORDS = np.round(RAMP * 65535).astype(np.uint16)
BYTES = np.round(RAMP * 255).astype(np.uint8)
COLOURS = np.stack([BYTES, BYTES[::-1], BYTES.T], axis=2)


def pixels(path, grayscale=False, side=SIDE) -> np.ndarray:
    image, label = ImageFiles([(str(path), 3)], side, grayscale)[0]
    assert image.dtype == torch.float32
    assert image.shape == (1 if grayscale else 3, side, side)
    assert label == 3
    return image.numpy()


def assert_grey(path, expected, atol=1e-7) -> None:
    assert np.allclose(pixels(path, grayscale=True)[0], expected, atol=atol, rtol=0)
    assert np.allclose(pixels(path), np.stack([expected] * 3), atol=atol, rtol=0)


def assert_colour(path, expected) -> None:
    assert np.allclose(pixels(path).transpose(1, 2, 0), expected, atol=1e-7, rtol=0)


def png(path, rows: np.ndarray, depth: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> None:
    """A PNG by the letter of its standard, for what Pillow does not write; ``rows`` are packed bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour_type, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in rows))
    middle = b"".join(chunk(*one) for one in (*chunks, (b"IDAT", data), (b"IEND", b"")))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + middle)


def tiff(path, data: bytes, bits: int, white_is_zero: bool = False, sample_format: int = 1) -> None:
    """A little-endian TIFF of one grey strip, for what Pillow does not write."""
    photometric = 0 if white_is_zero else 1
    entries = [(256, SIDE), (257, SIDE), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, SIDE)]
    entries += [(279, len(data)), (339, sample_format)]
    directory = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in entries)
    start = 8 + len(data)
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, start) + data + struct.pack("<H", len(entries)) + directory + bytes(4)
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_of_grey_are_scaled_by_their_depth(tmp_path, suffix):
    if suffix == "pgm":
        (tmp_path / "a.pgm").write_bytes(b"P5 4 4 65535\n" + WORDS.astype(">u2").tobytes())
    else:
        Image.fromarray(WORDS).save(tmp_path / f"a.{suffix}")
    assert_grey(tmp_path / f"a.{suffix}", WORDS / 65535)


def test_16_bits_in_either_byte_order_and_compressed(tmp_path):
    Image.fromarray(WORDS).save(tmp_path / "packed.tif", compression="tiff_lzw")
    assert_grey(tmp_path / "packed.tif", WORDS / 65535)
    big = io.BytesIO()
    Image.frombytes("I;16B", (SIDE, SIDE), WORDS.astype(">u2").tobytes()).save(big, "TIFF")
    assert big.getvalue()[:2] == b"MM"
    (tmp_path / "big.tif").write_bytes(big.getvalue())
    assert_grey(tmp_path / "big.tif", WORDS / 65535)


def test_16_bits_keep_what_8_would_lose_through_a_resize(tmp_path):
    stream = np.random.default_rng(0)
    fine = (32768 + stream.integers(0, 255, (8, 8))).astype(np.uint16)  # one and the same value in 8 bits
    Image.fromarray(fine).save(tmp_path / "a.png")
    # A side is halved by triangles of twice the width, cut off at the edge.
    hats = np.maximum(0, 1 - np.abs(np.arange(8) + 0.5 - (2 * np.arange(SIDE)[:, None] + 1)) / 2)
    weights = hats / hats.sum(axis=1, keepdims=True)
    expected = weights @ (fine / 65535) @ weights.T
    got = pixels(tmp_path / "a.png", grayscale=True)[0]
    assert np.allclose(got, expected, atol=1e-6, rtol=0)
    assert np.ptp(got) > 1e-4


def test_pgm_is_scaled_by_the_maximum_in_its_header(tmp_path):
    values = np.arange(16).reshape(SIDE, SIDE)
    (tmp_path / "small.pgm").write_bytes(b"P5 4 4 15\n" + values.astype(np.uint8).tobytes())
    (tmp_path / "twelve.pgm").write_bytes(b"P5 4 4 4095\n" + (values * 273).astype(">u2").tobytes())
    thousandths = np.round(RAMP * 1000).astype(int)
    (tmp_path / "text.pgm").write_text("P2 4 4 1000 " + " ".join(map(str, thousandths.flat)))
    assert_grey(tmp_path / "small.pgm", values / 15)
    assert_grey(tmp_path / "twelve.pgm", values / 15)
    assert_grey(tmp_path / "text.pgm", thousandths / 1000, atol=0.5 / 65535 + 1e-7)


def test_12_bits_are_scaled_by_4095(tmp_path):
    values = np.round(RAMP * 4095).astype(int).reshape(-1, 2)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.tolist())
    tiff(tmp_path / "a.tif", packed, bits=12)
    assert_grey(tmp_path / "a.tif", values.reshape(SIDE, SIDE) / 4095)


def test_white_may_be_zero(tmp_path):
    tiff(tmp_path / "a.tif", (65535 - WORDS).astype("<u2").tobytes(), bits=16, white_is_zero=True)
    assert_grey(tmp_path / "a.tif", WORDS / 65535)
    tiff(tmp_path / "b.tif", (255 - BYTES).tobytes(), bits=8, white_is_zero=True)
    assert_grey(tmp_path / "b.tif", BYTES / 255)
    tiff(tmp_path / "c.tif", (1 - RAMP).astype("<f4").tobytes(), bits=32, white_is_zero=True, sample_format=3)
    assert_grey(tmp_path / "c.tif", RAMP)


@pytest.mark.parametrize("suffix", ["tif", "tiff"])
def test_floats_in_the_unit_interval_are_taken_as_they_are(tmp_path, suffix):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / f"a.{suffix}")
    assert_grey(tmp_path / f"a.{suffix}", RAMP)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP * 255, r"a.tif has floats in \[0, 255\]; save it with pixels in \[0, 1\], or with 8 or 16 unsigned bits"),
        (RAMP - 0.5, r"has floats in \[-0.5, 0.5\]"),
        (np.where(RAMP == 0, np.nan, RAMP), "has floats in .*nan"),
    ],
)
def test_other_floats_are_refused(tmp_path, values, message):
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=message):
        pixels(tmp_path / "a.tif")


def test_integers_that_do_not_say_what_is_white_are_refused(tmp_path):
    Image.fromarray(WORDS.astype(np.int32)).save(tmp_path / "wide.tif")
    tiff(tmp_path / "signed.tif", (WORDS // 2).astype("<i2").tobytes(), bits=16, sample_format=2)
    tiff(tmp_path / "unsigned.tif", WORDS.astype("<u4").tobytes(), bits=32)
    for name in ("wide", "signed", "unsigned"):
        with pytest.raises(UserError, match=f"{name}.tif has signed or 32-bit integers.*save it with 8 or 16 unsigned"):
            pixels(tmp_path / f"{name}.tif")


def test_grey_of_few_bits(tmp_path):
    Image.fromarray(RAMP > 0.5).save(tmp_path / "one.png")
    Image.fromarray(RAMP > 0.5).save(tmp_path / "one.tif")
    assert_grey(tmp_path / "one.png", RAMP > 0.5)
    assert_grey(tmp_path / "one.tif", RAMP > 0.5)
    two, four = np.arange(16).reshape(SIDE, SIDE) % 4, np.arange(16).reshape(SIDE, SIDE)
    png(tmp_path / "two.png", two @ np.array([[64], [16], [4], [1]]), 2, 0)
    png(tmp_path / "four.png", four[:, ::2] * 16 + four[:, 1::2], 4, 0)
    assert_grey(tmp_path / "two.png", two / 3)
    assert_grey(tmp_path / "four.png", four / 15)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_colours_of_8_bits_stay_what_they_are(tmp_path, suffix):
    Image.fromarray(COLOURS).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert_colour(tmp_path / f"a.{suffix}", COLOURS / 255)


def test_colours_of_16_bits_are_read_by_their_upper_8(tmp_path):
    words = np.stack([WORDS, WORDS[::-1], WORDS.T], axis=2)
    png(tmp_path / "a.png", words.astype(">u2").reshape(SIDE, -1).view(np.uint8), 16, 2)
    assert np.abs(pixels(tmp_path / "a.png").transpose(1, 2, 0) - words / 65535).max() < 1 / 255
    assert pixels(tmp_path / "a.png").max() == 1


def test_palettes(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 200, 30], [255, 255, 255]], dtype=np.uint8)
    index = (np.arange(16).reshape(SIDE, SIDE) % 4).astype(np.uint8)
    for suffix in ("png", "gif", "bmp", "tif"):
        image = Image.frombytes("P", (SIDE, SIDE), index.tobytes())
        image.putpalette(colours.flatten().tolist())
        image.save(tmp_path / f"a.{suffix}")
        assert_colour(tmp_path / f"a.{suffix}", colours[index] / 255)
        seen = colours.copy()
        if suffix in ("png", "gif"):
            image.save(tmp_path / f"a.{suffix}", transparency=0)
            seen[0] = 255
            assert_colour(tmp_path / f"a.{suffix}", seen[index] / 255)
    image.save(tmp_path / "b.png", transparency=bytes([0, 128, 255, 255]))
    half = np.round(np.array([255, 0, 0]) * 128 / 255 + 255 * 127 / 255)
    assert_colour(tmp_path / "b.png", np.array([[255] * 3, half, colours[2], colours[3]])[index] / 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_black_on_transparent_is_black_on_white(tmp_path, suffix):
    ink = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    ink[1:3, 1:3, 3] = 255
    Image.fromarray(ink).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    expected = np.ones((SIDE, SIDE))
    expected[1:3, 1:3] = 0
    assert_grey(tmp_path / f"a.{suffix}", expected)


def test_alpha_is_composited_on_white_to_the_nearest_grey_level(tmp_path):
    stream = np.random.default_rng(0)
    layers = stream.integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
    layers[0, :, 3] = 255
    Image.fromarray(layers).save(tmp_path / "rgba.png")
    alpha = layers[..., 3:] / 255
    expected = layers[..., :3] * alpha + 255 * (1 - alpha)
    got = pixels(tmp_path / "rgba.png").transpose(1, 2, 0) * 255
    assert np.abs(got - expected).max() < 0.501
    assert np.abs(got - np.round(got)).max() < 1e-4
    assert np.allclose(got[0], layers[0, :, :3], atol=1e-4)
    Image.fromarray(np.ascontiguousarray(layers[..., 2:])).save(tmp_path / "la.png")
    assert_grey(tmp_path / "la.png", np.round(expected[..., 2]) / 255)


def test_one_value_may_be_the_transparent_one(tmp_path):
    keyed = COLOURS.copy()
    keyed[2, 1] = 7, 9, 11
    Image.fromarray(keyed).save(tmp_path / "rgb.png", transparency=(7, 9, 11))
    shown = keyed.copy()
    shown[2, 1] = 255
    assert_colour(tmp_path / "rgb.png", shown / 255)
    Image.fromarray(BYTES).save(tmp_path / "l.png", transparency=0)
    assert_grey(tmp_path / "l.png", np.where(BYTES == 0, 255, BYTES) / 255)
    Image.fromarray(RAMP > 0.5).save(tmp_path / "one.png", transparency=0)
    with pytest.raises(UserError, match=r"one.png vanishes on white; save it without transparency"):
        pixels(tmp_path / "one.png")
    two = np.arange(16).reshape(SIDE, SIDE) % 4  # the key is 1 of 3, which is decoded as 85
    png(tmp_path / "two.png", two @ np.array([[64], [16], [4], [1]]), 2, 0, (b"tRNS", b"\0\1"))
    assert_grey(tmp_path / "two.png", np.where(two == 1, 3, two) / 3)
    png(tmp_path / "deep.png", WORDS.astype(">u2").view(np.uint8), 16, 0, (b"tRNS", struct.pack(">H", WORDS[1, 2])))
    assert_grey(tmp_path / "deep.png", np.where(WORDS[1, 2] == WORDS, 65535, WORDS) / 65535)
    words = np.stack([WORDS] * 3, axis=2).astype(">u2").reshape(SIDE, -1).view(np.uint8)
    png(tmp_path / "rgb16.png", words, 16, 2, (b"tRNS", bytes(6)))
    with pytest.raises(UserError, match=r"transparent colour of 16 bits a channel.*save it with an alpha channel"):
        pixels(tmp_path / "rgb16.png")


def test_a_picture_that_vanishes_on_white_is_refused_and_a_blank_one_is_white(tmp_path):
    ink = np.full((SIDE, SIDE, 4), 255, dtype=np.uint8)
    ink[1:3, 1:3, 3] = 0
    Image.fromarray(ink).save(tmp_path / "white.png")
    unset = np.dstack([COLOURS, np.zeros_like(BYTES)])  # some programs leave the alpha of every pixel at 0
    Image.fromarray(unset).save(tmp_path / "unset.png")
    for name in ("white", "unset"):
        with pytest.raises(UserError, match=f"{name}.png vanishes on white; save it without transparency"):
            pixels(tmp_path / f"{name}.png")
    Image.fromarray(np.zeros_like(ink)).save(tmp_path / "blank.png")
    assert_grey(tmp_path / "blank.png", np.ones((SIDE, SIDE)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_the_orientation_of_the_camera_is_applied(tmp_path, suffix, orientation):
    upright = np.kron(np.arange(1, 13).reshape(3, 4) * 20, np.ones((8, 8))).astype(np.uint8)
    # The standard says where the file's first row and first column are seen.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "tif":
        Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
    else:
        Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    expected = np.asarray(Image.fromarray(upright).resize((24, 24), Image.Resampling.BILINEAR)) / 255
    got = pixels(tmp_path / f"a.{suffix}", grayscale=True, side=24)[0]
    assert np.abs(got - expected).max() < (0.02 if suffix in ("jpg", "webp") else 1e-6)


def test_deep_grey_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(WORDS.T[::-1])).save(tmp_path / "a.png", exif=exif)
    assert_grey(tmp_path / "a.png", WORDS / 65535)


def test_metadata_that_cannot_be_parsed_turns_nothing(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*garbage that is no directory")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_grey(tmp_path / "a.png", BYTES / 255)


def test_other_colour_spaces(tmp_path):
    # black, white, mid grey and red by the formulas of the spaces
    seen = np.array([[0, 0, 0], [255, 255, 255], [119, 119, 119], [255, 0, 0]])
    index = np.arange(16).reshape(SIDE, SIDE) % 4
    spaces = {
        "CMYK": ([[0, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 136], [0, 255, 255, 0]], 0),
        "YCbCr": ([[0, 128, 128], [255, 128, 128], [119, 128, 128], [76, 85, 255]], 1),
        "LAB": ([[0, 0, 0], [255, 0, 0], [128, 0, 0], [138, 81, 70]], 6),  # 8 bits of Lab are coarse
    }
    for mode, (table, tolerance) in spaces.items():
        stored = np.array(table, dtype=np.uint8)[index]
        Image.frombytes(mode, (SIDE, SIDE), stored.tobytes()).save(tmp_path / f"{mode}.tif")
        got = pixels(tmp_path / f"{mode}.tif").transpose(1, 2, 0) * 255
        assert np.abs(got - seen[index]).max() <= tolerance + 1e-3, mode
        grey = pixels(tmp_path / f"{mode}.tif", grayscale=True)[0] * 255
        assert np.abs(grey - seen[index] @ [0.299, 0.587, 0.114]).max() <= tolerance + 1, mode


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_pictures_the_first_counts(tmp_path, suffix):
    pages = [Image.fromarray(BYTES), Image.fromarray(255 - BYTES)]
    options = {"lossless": True} if suffix == "webp" else {}
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:], **options)
    assert Image.open(tmp_path / f"a.{suffix}").n_frames == 2
    assert_grey(tmp_path / f"a.{suffix}", BYTES / 255)


def test_a_bomb_is_one_line(tmp_path, monkeypatch):
    Image.fromarray(BYTES).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    with pytest.raises(UserError, match=r"the image .*a.png is too large to be read \(.*\); scale it down or remove"):
        pixels(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="is too large to be read"):
            pixels(tmp_path / "a.png")


def test_files_that_cannot_be_read_say_why(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no picture")
    for name, reason in (
        ("empty", r"the file is empty\); save it as PNG, or remove the file"),
        ("text", r"nothing that Pillow knows as an image\); save it as PNG, or"),
        ("absent", r"No such file or directory\); see that it is there and may be read"),
    ):
        with pytest.raises(UserError, match=rf"cannot read the image .*{name}.png \({reason}"):
            pixels(tmp_path / f"{name}.png")


def refusal(path) -> str | None:
    try:
        pixels(path)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp", "pgm"])
def test_damaged_files_are_users_errors_of_one_line(tmp_path, suffix):
    stream = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stream.integers(0, 256, (24, 24), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in np.linspace(1, len(whole) * 0.8, 25).astype(int)]
    for _ in range(50):
        content = np.frombuffer(whole, np.uint8).copy()
        content[stream.integers(0, min(len(content), 200), 3)] = stream.integers(0, 256, 3)
        damaged.append(content.tobytes())
    messages = []
    for number, content in enumerate(damaged):
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            message = refusal(path)
        if message is None:
            assert number >= 25, f"cut off at {len(content)} of {len(whole)} bytes"
        else:
            messages.append(message)
    assert len(messages) >= 20
    assert all(str(path) in message and len(message.splitlines()) == 1 for message in messages)
