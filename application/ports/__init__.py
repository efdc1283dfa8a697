"""The interfaces that the features need from outside."""
