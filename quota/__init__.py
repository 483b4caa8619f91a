"""GPUQuota: a namespace's GPU budget that is never exceeded."""
