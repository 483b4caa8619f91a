"""Extender of kube-scheduler: chooses nodes, cards and victims for pods that share GPUs."""
