"""What tests of clients and servers share."""

from tests.scripted_server import server  # noqa: F401
