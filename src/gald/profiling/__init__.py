"""What networks cost: parameters, GMACs, time and memory."""
