"""The rules of a registry mirror: values and decisions, without input, output, waiting, clock or chance."""
