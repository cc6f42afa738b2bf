"""`make bench-peers DATA=FOLDER`: quality and seconds beside what people have without us, on the same pairs in one run.

FOLDER holds cbsd68 (clean/ alone: noise is added), rain100l_20, its_4 and gopro_10 (degraded/ and clean/); what is not
there is said and left out. PSNR and SSIM are those of `pipelines.data.metrics`; methods take turns at each picture, on
the same CPUs. Every picture's numbers are kept in build/bench-peers, so that a stopped run goes on with --resume. The
tables go into docs/results.md; with --limit, a quick look, they are only printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.marks import write_between
from benchmarks.peer_methods import Method, Restore, methods
from ipt import RELEASED
from ipt.model import InstructIPT
from pipelines.common.files import write_json
from pipelines.common.params import Params, RealPairs, load_params
from pipelines.data.metrics import psnr, ssim
from pipelines.scoring.real_pairs import present, read_real_pairs
from pipelines.scoring.speed import machine

RESULTS, REPORT = Path("build/bench-peers"), Path("docs/results.md")
BEGIN = "<!-- made by `make bench-peers` -->\n"
# Names as in params.yaml where it has them: the noise of a picture hangs on the name.
SETS = {
    "CBSD68, noise of sigma 15": RealPairs("cbsd68_15", "cbsd68", "denoise", 15),
    "CBSD68, noise of sigma 25": RealPairs("cbsd68_25", "cbsd68", "denoise", 25),
    "CBSD68, noise of sigma 50": RealPairs("cbsd68_50", "cbsd68", "denoise", 50),
    "Rain100L, rain": RealPairs("rain100l", "rain100l_20", "derain"),
    "RESIDE indoor, haze": RealPairs("its", "its_4", "dehaze"),
    "GoPro, blur": RealPairs("gopro", "gopro_10", "deblur"),
}
WARM_UP = 64  # pixels, side of what each method restores before it is timed

Picture = tuple[np.ndarray, np.ndarray]  # degraded, clean


def score(variants: Sequence[Restore], degraded: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Of the variant with the highest PSNR: dB, SSIM and gain in dB; the mean seconds of one variant; megapixels.

    Raises ValueError where a variant returns another shape or what is no number.
    """
    seconds, outputs = [], []
    for restore in variants:
        started = time.perf_counter()
        restored = restore(degraded)
        seconds.append(time.perf_counter() - started)
        if restored.shape != clean.shape or not np.isfinite(restored).all():
            raise ValueError(f"expected finite {clean.shape}, got {restored.dtype} {restored.shape}")
        outputs.append((psnr(restored, clean), len(outputs), restored))
    best, _, restored = max(outputs, key=lambda output: output[:2])
    return {
        "psnr": best,
        "ssim": ssim(restored, clean),
        "gain": best - psnr(degraded, clean),
        "seconds": float(np.mean(seconds)),
        "megapixels": clean.shape[0] * clean.shape[1] / 1e6,
    }


def measure(rows: list[Method], pictures: list[Picture], path: Path, given: dict, run: str, resume: bool) -> dict:
    """The record of each method by name, kept in `path` after every picture.

    With `resume`, records that stand there, made of the same `given`, go on where they were. A method that fails is
    told, and is done no more; the others go on.
    """
    kept = json.loads(path.read_text()) if resume and path.is_file() else {}
    records = {
        method.name: continued(method, kept.get("methods", {}) if kept.get("given") == given else {}) for method in rows
    }
    ready: dict[str, Sequence[Restore]] = {}
    for number, (degraded, clean) in enumerate(pictures):
        for method in rows:
            record = records[method.name]
            if "failed" in record or number < len(record["pictures"]):
                continue
            try:
                if method.name not in ready:
                    ready[method.name] = warmed_up(method, degraded)
                    record["runs"].append(run)
                record["pictures"].append(score(ready[method.name], degraded, clean))
            except Exception as error:  # whatever a peer raises costs its own row only
                how = "left out" if isinstance(error, ModuleNotFoundError) else "failed"
                record["failed"] = f"{how}: {type(error).__name__}: {error}".replace("\n", " ")
                print(f"peers: {path.stem}: {method.name} {record['failed']}", flush=True)
        write_json(path, {"given": given, "methods": records})
        print(f"peers: {path.stem}: {number + 1} of {len(pictures)} pictures", file=sys.stderr, flush=True)
    return records


def continued(method: Method, kept: dict) -> dict:
    """The kept record of a method, unless it was made of something else; else a new one."""
    record = kept.get(method.name)
    if record is None or record["made_of"] != method.made_of:
        return {"told": method.told, "made_of": method.made_of, "runs": [], "pictures": []}
    return {key: value for key, value in record.items() if key != "failed"}  # it may have been mended


def warmed_up(method: Method, image: np.ndarray) -> Sequence[Restore]:
    """The variants of a method, each called once: what happens once a process is not a picture's time."""
    variants = method.build()
    corner = np.ascontiguousarray(image[:WARM_UP, :WARM_UP])
    for restore in variants:
        restore(corner)
    return variants


def table(records: dict, run: str) -> str:
    """Markdown, a row for each method; what was timed in another run is marked and told."""
    lines = [
        "| | told | PSNR | SSIM | gain, dB | worst picture | made worse | s / megapixel |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    elsewhere = []
    for name, record in records.items():
        if "failed" in record:
            lines.append(f"| {name} | {record['told']} | {record['failed']} | | | | | |")
            continue
        columns = {key: np.array([scores[key] for scores in record["pictures"]]) for key in record["pictures"][0]}
        gain, mark = columns["gain"], ""
        if record["runs"] != [run]:
            mark = " \\*"
            elsewhere.append(f"{name} ({', '.join(record['runs'])})")
        speed = f"{columns['seconds'].sum() / columns['megapixels'].sum():.2f}{mark}"
        lines.append(
            f"| {name} | {record['told']} | {columns['psnr'].mean():.2f} | {columns['ssim'].mean():.3f} | "
            f"{gain.mean():+.2f} | {gain.min():+.2f} | {(gain < 0).sum()} of {len(gain)} | "
            f"{speed if name != 'degraded' else ''} |"
        )
    note = f"\n\\* timed in another run, begun: {'; '.join(elsewhere)}\n" if elsewhere else ""
    return "\n".join(lines) + "\n" + note


def fingerprint(model: InstructIPT) -> str:
    """The same for the same weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().double().numpy().tobytes())
    return digest.hexdigest()[:12]


def on_cpus(count: int) -> None:
    """Let this process, and with it every library, use that many CPUs, or as many as there are."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("error: peers: needs Linux, which alone binds a process and its libraries to CPUs")
    cpus = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cpus)
    cv2.setNumThreads(len(cpus))
    torch.set_num_threads(len(cpus))


def every_kth(pairs: RealPairs, seed: int, limit: int | None) -> list[Picture]:
    """All pictures, or `limit` of them, evenly spread."""
    pictures = list(read_real_pairs(pairs, seed))
    return pictures[:: max(1, len(pictures) // limit)][:limit] if limit else pictures


def some_real_pairs(params: Params, data: Path, limit: int, teller: str) -> Iterator[tuple[RealPairs, list[Picture]]]:
    """Each of the real pairs of `params` that lies in the folder `data`, and `limit` of its pictures, spread evenly."""
    real = [dataclasses.replace(pairs, path=str(data / Path(pairs.path).name)) for pairs in params.evaluate.real_pairs]
    for pairs in present(real, teller):
        yield pairs, every_kth(pairs, params.seed, limit)


def main() -> None:
    """Measure every set that is there, print its table, and write all of them."""
    given = arguments()
    on_cpus(given.threads)
    sets = {title: dataclasses.replace(pairs, path=str(given.data / pairs.path)) for title, pairs in SETS.items()}
    there = present(sets.values(), "peers")
    if not there:
        sys.exit(f"peers: {given.data}: expected folders {', '.join(sorted({p.path for p in SETS.values()}))}")
    seed, model = load_params().seed, InstructIPT.from_pretrained(given.model)
    mark, run = fingerprint(model), time.strftime("%Y-%m-%d %H:%M")
    written, failed = "", []
    for title, pairs in sets.items():
        if pairs not in there:
            written += f"### {title}\n\nNot measured: the pairs were not there.\n\n"
            continue
        pictures = every_kth(pairs, seed, given.limit)
        rows = methods(pairs, model, mark, given.quality, given.ffdnet)
        made_of = {"set": dataclasses.asdict(pairs), "seed": seed, "pictures": len(pictures), "threads": given.threads}
        records = measure(rows, pictures, RESULTS / f"{pairs.name}.json", made_of, run, given.resume)
        megapixels = sum(clean.shape[0] * clean.shape[1] for _, clean in pictures) / 1e6
        part = f"### {title}\n\nPictures: {len(pictures)}, megapixels: {megapixels:.1f}.\n\n{table(records, run)}\n"
        print(part, flush=True)
        written += part
        failed += [name for name, record in records.items() if record.get("failed", "").startswith("failed")]
    how = f"Run of {run}, seed {seed}, {machine()}, model {given.model} (weights {mark}).\n\n"
    if given.limit is None:
        write_between(REPORT, BEGIN, "\n" + how + written)
    print(how)
    if failed:
        sys.exit(f"peers: failed: {', '.join(failed)}")


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("data/real_pairs"))
    parser.add_argument("--model", default=RELEASED, help="instruct-ipt, a folder, or models:/NAME@ALIAS")
    parser.add_argument("--quality", nargs="+", choices=["normal", "best"], default=["normal"])
    parser.add_argument(
        "--ffdnet",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="models/FFDNet_*.mat of github.com/cszn/FFDNet",
    )
    parser.add_argument("--limit", type=int, help="pictures of each set, for a quick look")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on with what build/bench-peers holds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
