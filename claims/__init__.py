"""ResourceClaimTemplates of the backend ``dra``: made, restored and removed."""
