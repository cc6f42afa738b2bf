"""An object store on this machine, which can be away; for tests and for the table of faults."""

from __future__ import annotations

import logging

from benchmarks.local_cluster import free_port

BUCKET = "bucket"


class LocalStore:
    """An S3 server (moto's) in this process with one bucket; what was away for a while then has what it had."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it tells of requests, and of what the dead half sent
        self.uri, self.port = f"s3://{BUCKET}", free_port()
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def environment(self, address: str, port: int) -> dict[str, str]:
        """How whoever reaches the server at `address` and `port` is told so."""
        return {
            "AWS_ENDPOINT_URL": f"http://{address}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def make_bucket(self) -> None:
        """To be called where the environment says where the server is."""
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)

    def leave(self) -> None:
        """Answer nobody."""
        self._server.stop()

    def come_back(self) -> None:
        """Answer again."""
        self._server.start()
