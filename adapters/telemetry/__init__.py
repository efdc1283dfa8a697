"""The log of events, the metrics, and the numbers that the workers share."""
