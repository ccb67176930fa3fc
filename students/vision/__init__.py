"""Students that see: encoders, heads, memory, files."""
