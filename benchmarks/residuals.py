"""What damage looks like in numbers: histograms and spectra of degraded against clean pictures.

Every measure takes pairs (degraded, clean) of float32 (H, W, 3) in [0, 1] and gives a curve: x and y, both (N,).
"""

from __future__ import annotations

import cv2
import numpy as np

Pairs = list[tuple[np.ndarray, np.ndarray]]
Curve = tuple[np.ndarray, np.ndarray]
WINDOW = 128  # pixels, side of the squares that spectra are taken of
SMALL = 1e-12  # keeps ratios of empty spectra finite


def residual_histogram(pairs: Pairs) -> Curve:
    """Density of degraded - clean over grey levels, -255 to 255."""
    edges = np.arange(-255, 258, 3) - 0.5
    total = sum(np.histogram((degraded - clean) * 255, edges)[0] for degraded, clean in pairs)
    return edges[:-1] + 1.5, total / (total.sum() * 3)


def residual_spectrum(pairs: Pairs) -> Curve:
    """Power of degraded - clean over cycles per pixel, averaged around the circle."""
    return _radial(sum(_power(_gray(degraded) - _gray(clean)) for degraded, clean in pairs) / len(pairs))


def power_ratio(pairs: Pairs) -> Curve:
    """Power of degraded over power of clean, by cycles per pixel: the square of a blur's transfer function."""
    degraded = sum(_power(_gray(pair[0])) for pair in pairs)
    clean = sum(_power(_gray(pair[1])) for pair in pairs)
    frequency, above = _radial(degraded)
    return frequency, above / (_radial(clean)[1] + SMALL)


def orientation(pairs: Pairs) -> Curve:
    """Density of the direction of the edges of degraded - clean, degrees counter-clockwise from straight down, by
    energy.

    A residual of upright streaks peaks at 0.
    """
    edges = np.linspace(-90, 90, 37)
    total = np.zeros(36)
    for degraded, clean in pairs:
        difference = cv2.GaussianBlur(_gray(degraded) - _gray(clean), None, 1)
        across, down = cv2.Sobel(difference, cv2.CV_32F, 1, 0), cv2.Sobel(difference, cv2.CV_32F, 0, 1)
        energy = across**2 + down**2
        angle = np.degrees(np.arctan2(-down, across))  # the gradient stands across the edge, and y points down
        total += np.histogram((angle + 90) % 180 - 90, edges, weights=energy / (energy.sum() + SMALL))[0]
    return edges[:-1] + 2.5, total / total.sum() / 5


def contrast_kept(pairs: Pairs) -> Curve:
    """Density of standard deviation of degraded over clean in windows of 16 pixels with something in them.

    Under haze I = J t + A (1 - t) it is t, the transmission.
    """
    kept = []
    for degraded, clean in pairs:
        before, after = (_deviation(_gray(image)) for image in (clean, degraded))
        kept.append((after / np.maximum(before, 1e-6))[before > 8 / 255])
    density, edges = np.histogram(np.concatenate(kept), np.linspace(0, 1.5, 46), density=True)
    return edges[:-1], density


def blob_sizes(pairs: Pairs) -> Curve:
    """Share of the area of bright spots of degraded - clean that is in spots below a diameter in pixels."""
    areas = []
    for degraded, clean in pairs:
        spots = (_gray(degraded) - _gray(clean) > 0.1).astype(np.uint8)
        areas.append(cv2.connectedComponentsWithStats(spots)[2][1:, cv2.CC_STAT_AREA])
    areas = np.sort(np.concatenate(areas))
    return np.sqrt(areas * 4 / np.pi), np.cumsum(areas) / max(areas.sum(), 1)


def _gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)


def _deviation(gray: np.ndarray) -> np.ndarray:
    mean, square = (cv2.blur(values, (16, 16)) for values in (gray, gray * gray))
    return np.sqrt(np.maximum(square - mean * mean, 0))


def _power(gray: np.ndarray) -> np.ndarray:
    """Mean power spectrum of the squares that fit, (WINDOW, WINDOW), zero frequency first."""
    taper = np.outer(np.hanning(WINDOW), np.hanning(WINDOW))
    height, width = gray.shape
    parts = [
        gray[top : top + WINDOW, left : left + WINDOW]
        for top in range(0, height - WINDOW + 1, WINDOW)
        for left in range(0, width - WINDOW + 1, WINDOW)
    ]
    return np.mean([np.abs(np.fft.fft2((part - part.mean()) * taper)) ** 2 for part in parts], axis=0)


def _radial(power: np.ndarray) -> Curve:
    """Mean around the circle, by cycles per pixel up to 0.5."""
    frequency = np.fft.fftfreq(WINDOW)
    radius = np.rint(np.hypot(frequency[:, None], frequency[None]) * WINDOW).astype(int)
    total = np.bincount(radius.ravel(), power.ravel())
    rings = np.arange(1, WINDOW // 2)
    return rings / WINDOW, (total / np.bincount(radius.ravel()))[rings]
