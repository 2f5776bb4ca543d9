"""The SDXS method, one file a stage."""
