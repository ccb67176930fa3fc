"""`tutelage bench`: measurements."""
