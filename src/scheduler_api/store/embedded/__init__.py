"""The private valkey-server of one data folder."""
