"""Certificates that look after themselves: CA, leaf, rotation, injection, reload."""
