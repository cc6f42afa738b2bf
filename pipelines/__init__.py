"""The pipeline: the only package that knows DVC, Ray and MLflow; one module per stage of dvc.yaml.

Where it cannot run, importing it is an ImportError with what to do, and `python -m pipelines.STAGE` ends with that
sentence. Else it sets, before those libraries are loaded, that none of them calls out, and that torch's threads soon
sleep when they wait: spinning, two of them on a machine that is busy with something else take many times as long;
asleep at once, half as long again on one that is not. A value that is in the environment already stays.
"""

import importlib.util
import os
import sys


def _hindrance() -> str | None:
    """Why the pipeline cannot run here, and what to do; None where it can."""
    if sys.platform == "win32":
        return "the pipeline needs Linux or macOS (on Windows: run it in WSL 2); `ipt`, which restores, runs on all"
    missing = [name for name in ("albumentations", "dvc", "mlflow", "ray") if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"the pipeline needs {', '.join(missing)}, not installed here: pip install 'instruct-ipt[pipeline]', or in "
            "a checkout pip install -c constraints.txt -e '.[pipeline]'"
        )
    return None


if _reason := _hindrance():
    if sys.argv[:1] == ["-m"]:  # a command is being started: its user wants the sentence, not where it was raised
        sys.exit(f"error: {_reason}")
    raise ImportError(_reason)

for _name, _value in {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "GOMP_SPINCOUNT": "2000",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)
