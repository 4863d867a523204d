"""What runs beside sending: leases, retention, recovery."""
