"""Claims of arXiv 2403.04545, each a function that returns its numbers, and a plot of them."""
