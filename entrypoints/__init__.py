"""Where the outside world comes in, and where the parts are put together."""
