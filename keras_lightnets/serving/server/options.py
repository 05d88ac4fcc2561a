"""Limits and addresses of the embedded server."""

from __future__ import annotations

import dataclasses

from keras_lightnets.export.tf_serving import GRPC_PORT, REST_PORT

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """What the embedded server listens on and what it refuses.

    Attributes:
        host: Address to bind; loopback unless told otherwise.
        rest_port: TCP port of the REST API; 0 picks a free one.
        grpc_port: TCP port of the gRPC API; 0 picks a free one.
        max_body_bytes: Largest request body; a larger one gets 413 and is not kept.
        max_requests: Requests worked on at once; one more gets 503.
        max_connections: Open REST connections; one more is closed at once.
        request_timeout_s: Seconds from a request's arrival to 504.
        client_timeout_s: Seconds for a client to send the headers of a request, then its body,
            then to take the answer (also how long an idle connection is kept).
        drain_timeout_s: Seconds that requests in flight get after SIGTERM.
        poll_interval_s: Seconds between two looks for new versions.
        threads: Threads inside one TensorFlow op, and ops run at once; 0 is one per core.
        page: Whether `GET /` answers with a page on which a person can try pictures.
    """

    host: str = "127.0.0.1"
    rest_port: int = REST_PORT
    grpc_port: int = GRPC_PORT
    max_body_bytes: int = 64 * MIB
    max_requests: int = 64
    max_connections: int = 1024
    request_timeout_s: float = 30.0
    client_timeout_s: float = 30.0
    drain_timeout_s: float = 30.0
    poll_interval_s: float = 1.0
    threads: int = 0
    page: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"`{field.name}` must not be negative. Received: {value}")
        for name in ("rest_port", "grpc_port"):
            if getattr(self, name) > 65535:
                raise ValueError(f"`{name}` must be 0 to 65535. Received: {getattr(self, name)}")
