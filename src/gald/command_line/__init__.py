"""What helps to write a command line: other words for a key, and the shell's completion."""
