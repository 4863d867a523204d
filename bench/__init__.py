"""Measures the server beside what the machine can do at best; see README.md."""
