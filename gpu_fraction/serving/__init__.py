"""HTTPS servers that lose no request when they stop; logs and probes of every program."""
