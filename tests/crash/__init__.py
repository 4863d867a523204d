"""The crash campaign: real processes under load, killed at every step, and a judge of arrivals."""
