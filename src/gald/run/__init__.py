"""Run folders: checkpoints, results, atomic writes, provenance, and safe loading."""
