"""The families of cases, one file each, and the code that checks and times them on any device."""
