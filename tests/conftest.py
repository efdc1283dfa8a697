"""What every test needs."""

import pytest
from hypothesis import settings

# Here, because tests of other folders import modules that use it.
pytest.register_assert_rewrite("tests.e2e.support.pull_checks")

# A machine under load is slow, and no reason to fail.
settings.register_profile("patient", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15)
settings.load_profile("patient")
