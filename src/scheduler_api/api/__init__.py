"""How things are asked for: decode, one call to the store, encode."""
