"""The command line: one module a noun, `main` puts the commands together."""
