"""Bytes and milliseconds in the store, messages and datetimes outside."""
