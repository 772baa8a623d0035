"""An S3 server on loopback, for tests: moto's, with a count of requests, outages, and an old server's deafness."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "the-user", "AWS_SECRET_ACCESS_KEY": "the-password"}
CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")


class _Quiet(WSGIRequestHandler):
    def log(self, *args: object) -> None:
        pass


class ObjectStore:
    """The server, in a thread. `requests`: method and path of each; `answers`: False while it is out of order;
    `conditions`: whether it honours If-None-Match and If-Match; `refuses`: whether it refuses requests with them."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answers = self.conditions = True
        self.refuses = False
        self._inner = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._buckets = 0

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if not self.answers:
            start_response("503 Service Unavailable", [])
            return [b""]
        if self.refuses and any(name in environ for name in CONDITIONS):
            start_response("501 Not Implemented", [])
            return [b"<Error><Code>NotImplemented</Code></Error>"]
        if not self.conditions:
            environ = {name: value for name, value in environ.items() if name not in CONDITIONS}
        return self._inner(environ, start_response)

    def uri(self, bucket: str, folder: str = "stages") -> str:
        options = f"scheme=http&endpoint_override=127.0.0.1:{self._server.server_port}&region=us-east-1"
        return f"s3://{bucket}/{folder}?{options}"

    def bucket(self) -> str:
        """A new one."""
        import boto3

        self._buckets += 1
        name = f"bucket-{self._buckets}"
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._server.server_port}",
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=name)
        return name

    def stop(self) -> None:
        self._server.shutdown()
