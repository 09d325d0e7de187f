"""What a run folder holds, how its files are written, and what may be built from them."""
