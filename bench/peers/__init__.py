"""Other schedulers that do the same work in the same run; installed by the script `setup`."""
