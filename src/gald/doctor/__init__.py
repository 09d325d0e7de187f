"""What this machine can do, and what is broken on it."""
