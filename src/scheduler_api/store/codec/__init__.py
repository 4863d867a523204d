"""Bytes and milliseconds inside, messages and datetimes outside."""
