"""How things are sent: claim, send, settle."""
