"""Export to TF Serving and other runtimes, a client, and a stand-in server."""
