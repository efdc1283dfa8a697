"""The commands of the console program, apart from serve."""
