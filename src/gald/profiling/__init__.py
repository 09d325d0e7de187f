"""Cost of networks: parameters, GMACs, time and memory."""
