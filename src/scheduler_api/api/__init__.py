"""The HTTP API. A handler decodes a request, makes one call to the store and encodes the result."""
