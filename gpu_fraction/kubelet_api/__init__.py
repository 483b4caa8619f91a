"""The kubelet's gRPC interfaces: the vendored ``.proto`` files and what is generated from them.

The generated modules are written by ``scripts/generate_protos.py`` (``make protos``), never
by hand; a test generates them again and compares.
"""
