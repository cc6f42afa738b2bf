"""`make gallery`: real damage, before and after by the model that comes with `ipt`, into docs/gallery.md.

    python -m benchmarks.gallery [FOLDER] [--task TASK]

Without a folder the pictures are photographs that come with this project's dependencies, free to pass on, each with
the task that its damage asks for. With one they are all pictures in it, of `--task` or as each picture decides, into
build/gallery/index.html; where `clean/` beside their folder has a picture of the same name, PSNR is that to it.
"""

from __future__ import annotations

import argparse
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from benchmarks.marks import write_between
from ipt import InstructIPT
from ipt.files import replace_file
from ipt.photos import read_photo
from ipt.pixels import to_unit
from ipt.restoring.finding import find_photographs
from ipt.restoring.restore import plan_restoration, restore_tasks
from pipelines.data.metrics import psnr

DOCUMENT, PICTURES, MARK = Path("docs/gallery.md"), Path("docs/gallery"), "<!-- made by `make gallery` -->\n"
OWN = Path("build/gallery")
GAP, WIDEST = 6, 760  # pixels, of a picture beside another
SHOWN_WIDTH = 640  # pixels, of a piece in the document
LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
CHINA = (
    "[danielbuechele](https://www.flickr.com/photos/danielbuechele/6061409035), "
    "[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/)"
)


@dataclass(frozen=True)
class Shown:
    """A photograph of the document: its name, what is wrong, where it is from, the task and the piece that is shown."""

    name: str
    title: str
    origin: str
    task: str
    corner: tuple[int, int]  # x, y of the piece
    side: tuple[int, int] = (360, 240)  # width, height


SHOWN = (
    Shown(
        "hubble",
        "A sensor's noise",
        "Hubble eXtreme Deep Field: NASA, public domain",
        "denoise",
        (330, 380),
        (180, 120),
    ),
    Shown("hopper", "Grain", "Grace Hopper: U.S. Navy, public domain", "denoise", (190, 10), (180, 120)),
    Shown("china", "Haze in the distance", f"Summer Palace: {CHINA}", "dehaze", (280, 110)),
    Shown("clock", "A camera that moved", "Clock: Stéfan van der Walt, public domain", "deblur", (20, 30)),
)


def photograph(name: str) -> np.ndarray:
    """A photograph of the document, uint8 (H, W, 3) RGB."""
    if name == "china":
        return load_sample_image("china.jpg")
    if name == "hopper":
        with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
            return np.asarray(Image.open(file).convert("RGB"))
    image = {"hubble": data.hubble_deep_field, "clock": data.clock}[name]()
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def noise(levels: np.ndarray) -> float:
    """Guess the noise's standard deviation in grey levels (Immerkaer 1996); texture counts as noise."""
    grey = levels.astype(np.float32).mean(axis=2)
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(cv2.filter2D(grey, -1, LAPLACE)[1:-1, 1:-1]).mean())


def measured(before: np.ndarray, after: np.ndarray, clean: np.ndarray | None = None) -> str:
    """What can be told of a restored picture, all of 8 bits: with a clean one PSNR, else how much has changed."""
    if clean is not None:
        was, is_now = (psnr(to_unit(levels), to_unit(clean)) for levels in (before, after))
        return f"PSNR {was:.2f} dB before, {is_now:.2f} after"
    return f"changed by {np.abs(after.astype(np.int16) - before).mean():.1f} grey levels on the average"


def joined(pictures: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Pictures, uint8 (H, W, 3), with white gaps between them: one below the other (axis 0) or side by side (1)."""
    gap = np.full_like(pictures[0].take(range(GAP), axis), 255)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis)


def write_jpeg(levels: np.ndarray, path: Path) -> None:
    """Write uint8 RGB levels with quality 85."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=85)
    with replace_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def write_document(model: InstructIPT) -> None:
    """The pictures of the document, and what stands there of each."""
    text = ""
    for shown in SHOWN:
        before = photograph(shown.name)
        after = restore_tasks(model, before, [shown.task])
        alone = not plan_restoration(model, before).tasks
        (x, y), (width, height) = shown.corner, shown.side
        size = SHOWN_WIDTH, SHOWN_WIDTH * height // width
        pieces = (levels[y : y + height, x : x + width] for levels in (before, after))
        large = joined([cv2.resize(piece, size, interpolation=cv2.INTER_CUBIC) for piece in pieces], 1)
        write_jpeg(large, PICTURES / f"{shown.name}.jpg")
        told = measured(before, after)
        if shown.task == "denoise":
            told += f", noise of {noise(before):.1f} before and {noise(after):.1f} after"
        text += f"\n## {shown.title}\n\n![{shown.title.lower()}, before and after](gallery/{shown.name}.jpg)\n\n"
        text += (
            f"*`ipt restore --task {shown.task}`: {told}. Without a task: {'left alone' if alone else 'restored'}.\n"
        )
        text += f"{shown.origin}; a piece, enlarged.*\n"
        print(f"{shown.name}: {told}", flush=True)
    write_between(DOCUMENT, MARK, text + "\n")


def write_page(model: InstructIPT, folder: Path, task: str | None) -> None:
    """All pictures of a folder, and a page of them."""
    figures = []
    for source, target in find_photographs([str(folder)], OWN):
        if source.parent.name == "clean":
            continue
        before = read_photo(source).levels
        before = before if before.dtype == np.uint8 else (before // 257).astype(np.uint8)
        tasks = plan_restoration(model, before, task=task).tasks
        after = restore_tasks(model, before, tasks) if tasks else before
        reference = source.parents[1] / "clean" / source.name
        clean = read_photo(reference).levels if source.parent.name == "degraded" and reference.is_file() else None
        caption = f"{source.relative_to(folder)}, {', '.join(tasks) or 'left alone'}: {measured(before, after, clean)}"
        small = min(1.0, WIDEST / before.shape[1])
        pair = [
            cv2.resize(levels, None, fx=small, fy=small, interpolation=cv2.INTER_AREA) for levels in (before, after)
        ]
        picture = target.with_suffix(".jpg").relative_to(OWN)
        write_jpeg(joined(pair, 1), OWN / picture)
        address, words = html.escape(str(picture)), html.escape(caption)
        figures.append(f'<figure><img src="{address}" alt=""><figcaption>{words}</figcaption></figure>')
        print(caption, flush=True)
    with replace_file(OWN / "index.html") as temporary:
        temporary.write_text(
            '<!doctype html><meta charset="utf-8"><title>Gallery</title>\n' + "\n".join(figures) + "\n"
        )
    print(f"{len(figures)} pictures: {OWN / 'index.html'}")


def main() -> None:
    """Restore and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--task", help="what to do with the folder's pictures; without it each decides for itself")
    given = parser.parse_args()
    model = InstructIPT.from_pretrained()
    if given.folder is None:
        write_document(model)
    else:
        write_page(model, given.folder, given.task)


if __name__ == "__main__":
    main()
