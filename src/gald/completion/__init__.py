"""Completion of the words of gald by the shell."""
