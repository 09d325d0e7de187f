"""What a command line is made of: its apps, and other words for a wrong key."""
