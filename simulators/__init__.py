"""Systems to experiment on, one file each: a truth, an expert that lacks something, shifts."""
