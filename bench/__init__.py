"""Measures the server beside what the machine could do at best; see README.md."""
