"""Scenes in, uint8 batches out: datasets, joint transforms, samplers and the data modules."""
