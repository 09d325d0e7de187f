"""Options of a config: their types and ranges, and the check of a config before it is built."""
