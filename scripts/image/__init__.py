"""The container image, built with Python, pip and apt alone: ``python -m scripts.image``."""
