"""What a network costs and how well it does, read off its exported file."""
