"""Pictures for people, as PNG."""

from __future__ import annotations

import cv2
import numpy as np

from ipt.pixels import to_levels


def encode_png(image: np.ndarray) -> bytes:
    """Encode an RGB image (H, W, 3), uint8 or float32 in [0, 1], as an 8-bit PNG."""
    done, data = cv2.imencode(".png", to_levels(image)[..., ::-1])
    if not done:
        raise ValueError(f"PNG encoder refused an image of shape {image.shape}")
    return data.tobytes()
