"""The only package that an installation adds to site-packages."""
