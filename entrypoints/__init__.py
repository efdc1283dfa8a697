"""The program: command line, settings, HTTP server, and the wiring of all components."""
