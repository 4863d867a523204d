"""One request to a receiver, over HTTP/1.1."""
