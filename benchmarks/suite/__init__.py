"""The families of cases, a file each, and what checks and times cases on any device."""
