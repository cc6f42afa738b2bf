"""The pipeline: the only package that knows DVC, Ray and MLflow; one module per stage of dvc.yaml.

Importing it sets, before those libraries are loaded, that none of them calls out, that a local Ray cluster needs no
token file in the home folder, and that torch's threads soon sleep when they wait: spinning, two of them on a machine
that is busy with something else take many times as long; asleep at once, half as long again on one that is not. A
value that is in the environment already stays.
"""

import os

for _name, _value in {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "GOMP_SPINCOUNT": "2000",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)
