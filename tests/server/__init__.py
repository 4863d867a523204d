"""Tests of the server: how processes start, end, and replace each other."""
