"""Statistics, pictures and pages."""
