"""What is known of the state of an upstream: outages, requests to slow down, the pull allowance."""
