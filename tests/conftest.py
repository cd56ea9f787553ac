"""Settings of the whole test suite."""

from hypothesis import settings

# A busy machine may take long over one example; that is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
