"""Check of this machine: package versions, devices, paths, and problems."""
