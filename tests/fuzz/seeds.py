"""Small inputs of every kind, made by the libraries that the tests have, and some that once did harm."""

from __future__ import annotations

import base64
import io
import itertools
import json
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from benchmarks.hostile_bodies import chunk
from fuzz import formats
from fuzz.checkpoints import join_checkpoint
from ipt.network.checkpoint import CONFIG, WEIGHTS, save_model
from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
from ipt.photos import png, tiff
from ipt.photos.tags import SHORT, entry, pack_header, pack_tags

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def seeds(target: str) -> dict[str, bytes]:
    """By name, the inputs that fuzzing of a target begins with."""
    makers = {"photo": _pictures, "image": _pictures, "tags": _blocks, "request": _requests}
    return (makers | {"checkpoint": _checkpoints, "yaml": _yaml})[target]()


def _levels() -> np.ndarray:
    """uint8 (9, 13, 4), smooth."""
    y, x = np.mgrid[0:9, 0:13]
    return np.stack([x * 19, y * 28, 255 - x * 9 - y, np.minimum(x * 30, 255)], axis=-1).astype(np.uint8)


def _pictures() -> dict[str, bytes]:
    return _by_pillow() | _wide() | _several() | harmful()


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _texts(kind: str) -> dict[str, object]:
    """All that a file of this kind may say beside its pixels."""
    if kind == "BMP":
        return {"dpi": (300, 300)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Camera 5"
    exif.get_ifd(0x8769)[0x927C], exif.get_ifd(0x8825)[1] = b"maker\0note", "N"
    texts = {"exif": exif, "icc_profile": profile, "dpi": (300, 200)}
    if kind == "PNG":
        texts["pnginfo"] = info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Author", "Ada", zip=True)
    elif kind in ("JPEG", "WEBP"):
        texts["xmp"] = XMP
    if kind == "JPEG":
        texts["comment"] = b"by hand"
        texts["extra"] = b"\xff\xed" + struct.pack(">H", 16) + b"Photoshop 3.0\0"
    return texts


def _by_pillow() -> dict[str, bytes]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    colour = Image.fromarray(_levels()[..., :3])
    found = {}
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF"):
        found[f"whole-{kind}"] = _saved(colour, kind, **_texts(kind))
        found[f"bare-{kind}"] = _saved(colour, kind)
    modes = {
        "PNG": ("1", "L", "LA", "P", "RGBA", "I;16"),
        "TIFF": ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"),
    }
    modes |= {
        "BMP": ("1", "L", "P", "RGBA"),
        "WEBP": ("RGBA",),
        "JPEG": ("L", "CMYK"),
        "AVIF": ("RGBA",),
        "HEIF": ("L", "RGBA"),
    }
    for kind, mode in ((kind, mode) for kind, names in modes.items() for mode in names):
        wide = Image.fromarray(_levels()[..., 0].astype(np.uint16) * 257)
        picture = wide if mode == "I;16" else Image.frombytes("LAB", (13, 9), colour.tobytes()) if mode == "LAB" else (
            Image.fromarray(_levels()).convert(mode))  # fmt: skip
        found[f"{kind}-{mode}".replace(";", "-")] = _saved(picture, kind)
    found |= {
        "png-transparent": _saved(colour, "PNG", transparency=(0, 0, 255)),
        "png-palette-transparent": _saved(colour.quantize(16), "PNG", transparency=bytes(range(16))),
        "jpeg-progressive": _saved(colour, "JPEG", progressive=True, quality=30),
        "jpeg-inks-profile": _saved(colour.convert("CMYK"), "JPEG", icc_profile=_texts("JPEG")["icc_profile"]),
        "webp-lossless": _saved(Image.fromarray(_levels()), "WEBP", lossless=True, exact=True, xmp=XMP),
    }
    for packing in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate"):
        found[f"tiff-{packing}"] = _saved(colour, "TIFF", compression=packing)
    for packing in ("group3", "group4"):
        found[f"tiff-{packing}"] = _saved(colour.convert("1"), "TIFF", compression=packing)
    return found


def _wide() -> dict[str, bytes]:
    """16 bits per channel, and TIFF in layouts that Pillow does not write."""
    wide = _levels().astype(np.uint16) * 257
    found = {f"png-16-{channels}": png.encode(wide[..., :channels], [(b"gAMA", bytes(4))]) for channels in (1, 2, 3, 4)}
    for channels, packing in itertools.product((1, 2, 4), (tiff.NONE, tiff.LZW, tiff.DEFLATE, tiff.PACKBITS)):
        found[f"tiff-16-{channels}-{packing}"] = tiff.encode(wide[..., :channels], "<", {}, packing)
    kinds = {"rgb": wide[..., :3], "minisblack": wide[..., 0], "miniswhite": wide[..., 0]}
    for (kind, pixels), big, order in itertools.product(kinds.items(), (False, True), "<>"):
        tiles = {"tile": (16, 16)} if big else {"rowsperstrip": 4}
        found[f"tiff-16-{kind}-{big}-{order == '<'}"] = _by_tifffile(pixels, order, big, photometric=kind, **tiles)
    planes = np.ascontiguousarray(wide.transpose(2, 0, 1))
    found["tiff-16-planes"] = _by_tifffile(
        planes, "<", False, photometric="rgb", planarconfig="separate", extrasamples=[1], compression="zlib"
    )
    found["tiff-8-planes"] = _by_tifffile(
        planes[:3].astype(np.uint8), ">", False, photometric="rgb", planarconfig="separate"
    )
    found["tiff-float"] = _by_tifffile(wide.astype(np.float32), "<", False, photometric="rgb", extrasamples=[2])
    found["bmp-opencv"] = cv2.imencode(".bmp", _levels())[1].tobytes()
    return found


def _by_tifffile(pixels: np.ndarray, order: str, big: bool, **options: object) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
        writer.write(pixels, **options)
    return buffer.getvalue()


def _several() -> dict[str, bytes]:
    """Animations, pages, and a phone's JPEG with a further picture."""
    first = Image.fromarray(_levels()[..., :3])
    rest = [Image.fromarray(255 - _levels()[..., :3])]
    return {
        f"several-{kind}": _saved(first, kind, save_all=True, append_images=rest)
        for kind in ("PNG", "WEBP", "TIFF", "MPO")
    }


def harmful() -> dict[str, bytes]:
    """Files that once did harm, or that would; all are refused."""
    text = chunk(b"tEXt", b"Comment\0hello")
    sixteen = png.encode(_levels().astype(np.uint16), [])
    bomb = zlib.compress(bytes(10**6), 9)
    huge = formats.FORMATS[0].join(
        [(b"IHDR", struct.pack(">LLBBBBB", 3900, 3000, 8, 2, 0, 0, 0)), (b"iCCP", b"a\0\0" + bomb), (b"IDAT", bomb)]
    )
    page = Image.new("RGB", (1, 1))
    slow = _saved(Image.new("L", (300, 300)), "JPEG", progressive=True)
    sides = struct.pack("<L", 16382 | 16382 << 14)
    riff, jpg = formats.FORMATS[2], formats.FORMATS[1]
    segments = jpg.split(_saved(Image.new("RGB", (9, 9)), "JPEG"))
    return {
        "jpeg-many-scans": slow[:-2] + slow[slow.rindex(b"\xff\xda") : -2] * 200 + slow[-2:],
        "jpeg-huge": jpg.join([(n, b"\x08" + b"\xff" * 4 + b[5:] if n == b"\xff\xc0" else b) for n, b in segments]),
        "jpeg-no-tables": jpg.join([piece for piece in segments if piece[0] not in (b"\xff\xdb", b"\xff\xc4")]),
        "webp-huge": riff.join([(b"VP8L", b"\x2f" + sides + bytes(20))]),
        "webp-empty": riff.join([(b"VP8X", bytes([8, 0, 0, 0]) + b"\xff" * 6), (b"EXIF", b"II*\0" + b"\xff" * 90)]),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        "two-widths": two_widths(20_000, 1),
        "directory-in-itself": _directory([(0x8769, 4, 1, 8), (330, 4, 1, 8)], behind=8),
        # Its end is missing: each of the directories in it is damaged, and was read again for the next entry.
        "many-in-one": _directory([(0x8769, 4, 1, 8)] * 1000)[:-16],
        "text-before-head": sixteen[:8] + text + sixteen[8:],
        "unpacks-to-much": huge,
        "pages": _saved(page, "TIFF", save_all=True, append_images=[page] * 40),
    }


def two_widths(ours: int, pillows: int) -> bytes:
    """A 16-bit TIFF of 10 rows with two widths: ours is a number of kind 18, which Pillow does not know."""
    strip, behind = zlib.compress(bytes(2 * 10 * max(ours, pillows))), 8 + 2 + 10 * 12 + 4
    rows = [(256, 18, 1, behind), (256, 3, 1, pillows), (257, 3, 1, 10), (258, 3, 1, 16), (259, 3, 1, tiff.DEFLATE)]
    rows += [(262, 3, 1, 1), (273, 4, 1, behind + 8), (277, 3, 1, 1), (278, 3, 1, 10), (279, 4, 1, len(strip))]
    return _directory(rows) + struct.pack("<Q", ours) + strip


def _directory(rows: list[tuple[int, int, int, int]], behind: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHLL", *row) for row in rows)
    return struct.pack("<2sHLH", b"II", 42, 8, len(rows)) + body + struct.pack("<L", behind)


def _blocks() -> dict[str, bytes]:
    """EXIF blocks and small TIFF files."""
    found = {name: data for name, data in _pictures().items() if data[:2] in (b"II", b"MM") and len(data) < 1000}
    for order in "<>":
        inner = {0x829D: (5, 1, struct.pack(f"{order}LL", 28, 10)), 0x927C: (7, 7, b"maker\0n")}
        deep = {0x8769: (4, 1, inner | {0xA005: (4, 1, {1: (2, 4, b"R98\0")})}), 0x0112: entry(order, 6, kind=SHORT)}
        found[f"exif-{order == '<'}"] = pack_header(order, 8) + pack_tags(order, deep, 8)
        found[f"cut-{order == '<'}"] = found[f"exif-{order == '<'}"][:20]
    return found | {"entries": struct.pack("<2sHLH", b"II", 42, 8, 3000) + struct.pack("<HHLL", 0x8769, 4, 1, 8) * 3000}


def _requests() -> dict[str, bytes]:
    """Orders as forms and as JSON, and some that are none."""
    form = b"host: localhost\ncontent-type: multipart/form-data; boundary=b\n\n"
    text = b"host: 127.0.0.1\ncontent-type: application/json\n\n"
    image = base64.b64encode(bytes(range(60))).decode()
    parts = _part(b'image"; filename="x', bytes(range(256)))
    wishes = [
        {"task": "derain"},
        {"instruction": "clear the fög"},
        {"strength": 0.5},
        {"task": None, "strength": "1"},
        {"x": 1},
    ]
    found = {
        f"json-{number}": text + json.dumps({"image": image} | wish).encode() for number, wish in enumerate(wishes)
    }
    for number, wish in enumerate(wishes):
        fields = b"".join(_part(name.encode(), str(value).encode()) for name, value in wish.items())
        found[f"form-{number}"] = form + parts + fields + b"--b--\r\n"
    return found | {
        "json-long": text + json.dumps({"image": image * 400, "instruction": "\U0001f327" * 20}).encode(),
        "json-escaped": text + json.dumps({"image": "/+==" * 9}).replace("/", "\\/").replace("=", "\\u003D").encode(),
        "json-deep": text + b"[" * 5000,
        "json-empty-lists": text + b'{"image": [' + b"[]," * 900 + b"1]}",
        "form-two-files": form + parts + parts + b"--b--\r\n",
        "form-cut": form + parts[:90],
        "plain": b"content-type: text/plain\ncontent-length: 3\n\nabc",
        "packed": b"content-encoding: gzip\n\n" + zlib.compress(b"abc"),
        "origin": b"host: localhost:80\norigin: http://evil.example\nsec-fetch-site: cross-site\n\n{}",
    }


def _part(name: bytes, value: bytes) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value + b"\r\n"


def _checkpoints() -> dict[str, bytes]:
    """The config and the weights of small networks, each with its length before it."""
    shapes = {"attention": {"blocks": (1, 1), "attention_levels": 1}, "one-level": {"blocks": (1,), "rank": 2}}
    found = {}
    for name, shape in shapes.items():
        values = {"tasks": ("derain", "dehaze"), "width": 4, "patch": 2, "attention_levels": 0, "head_width": 2}
        values |= {"expansion": 1.5, "rank": 1, "layers": ("*.project",)} | shape
        with tempfile.TemporaryDirectory() as folder:
            save_model(TaskNetwork(ModelConfig(**values)), Path(folder))
            config, weights = ((Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS))
        found[name] = join_checkpoint(config, weights)
        huge = json.dumps(json.loads(config) | {"width": 10**6, "blocks": [9] * 9})
        found[f"{name}-huge"] = join_checkpoint(huge.encode(), weights)
        found[f"{name}-deep"] = join_checkpoint(b"[" * 5000, weights)
        found[f"{name}-cut"] = join_checkpoint(config, weights[:-5])
    return found


def _yaml() -> dict[str, bytes]:
    """What YAML knows that params.yaml has, and that it has not."""
    return {
        "plain": b"seed: 0\ntasks:\n  derain: {share: 1, weight: 2e-4, recipe: [Rain: {p: 0.5}]}\n  # words\n",
        "anchors": b"a: &a [1, 2]\nb: *a\nc: &c {<<: *a, d: *c}\n",
        "others": b"when: 2026-11-26\nset: !!set {a, b}\nbytes: !!binary eA==\ntext: |\n  long\n  text\n? [a]\n: b\n",
        "object": b"!!python/object/apply:os.system ['true']\n--- two\n...\n",
        "laughs": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    }
