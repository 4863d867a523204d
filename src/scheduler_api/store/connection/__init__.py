"""How the store is reached: client, scripts, batching, notifications."""
