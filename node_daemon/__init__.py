"""The part that runs on every GPU node: inventory, device plugin, late binding, isolation."""
