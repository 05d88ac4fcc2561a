from .client import Client as Client
from .transport import ClientError as ClientError
