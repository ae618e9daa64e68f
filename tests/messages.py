"""Expect an error by its whole text."""

import re

import pytest


def raises(text, error=ValueError):
    """Return pytest's context for an error whose message holds the text, to the letter."""
    return pytest.raises(error, match=re.escape(text))
