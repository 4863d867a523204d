"""Campaigns (`make campaigns`): many cases of one kind of fault; each prints its counts."""
