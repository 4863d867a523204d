"""The server: what it is composed of, and how it runs."""
