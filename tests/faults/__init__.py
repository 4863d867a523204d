"""What is promised when the network, the store, a receiver or the machine fails: see README.md."""
