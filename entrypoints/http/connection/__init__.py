"""Accepts connections and reads requests from them, within bounds."""
