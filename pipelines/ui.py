"""`make ui`: MLflow's page on the store that the stages write to."""

from __future__ import annotations

import os
import sys

from pipelines.tracking.store import tracking_uri


def main() -> None:
    """Become `mlflow ui` on this repository's store; further arguments (such as --port) are passed on."""
    os.execv(
        sys.executable,
        [
            sys.executable,
            "-m",
            "mlflow",
            "ui",
            "--backend-store-uri",
            tracking_uri(),
            *sys.argv[1:],
        ],
    )


if __name__ == "__main__":
    main()
