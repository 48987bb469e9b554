"""What a network learns: one task a file."""
