"""One pod annotation becomes the right slice of a GPU on Kubernetes."""
