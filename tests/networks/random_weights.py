"""Old names, until all tests import them from tests.small."""

from tests.small import normal, randomised

__all__ = ["normal", "randomised"]
