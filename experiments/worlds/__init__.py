"""What experiments know of each world."""
