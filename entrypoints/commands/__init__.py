"""The commands of the console program, except serve."""
