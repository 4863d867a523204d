"""The embedded store: a private valkey-server for all processes that share a data folder."""
