"""The two slots, global aggregation (`ga`) and local distribution (`ld`), and what they share."""
