"""Other schedulers, measured in the same runs; the script `setup` installs them."""
