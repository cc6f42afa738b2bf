"""The HTTP service behind `pipelines/serve.py`."""
