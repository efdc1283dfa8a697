"""The process and its life: workers, reload, logs, certificates."""
