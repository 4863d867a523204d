"""/messages."""
