"""The real dispatcher on a virtual clock, over the modelled store."""
