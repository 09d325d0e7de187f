"""Datasets, joint transforms, samplers and data modules: from files to uint8 batches."""
