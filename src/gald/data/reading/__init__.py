"""Readers: from files to arrays."""
