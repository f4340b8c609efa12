"""Cases of one form, a family a file, and what runs them on any device."""
