"""What every test needs."""

from hypothesis import settings

# A machine under load is slow, and no reason to fail.
settings.register_profile("patient", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15)
settings.load_profile("patient")
