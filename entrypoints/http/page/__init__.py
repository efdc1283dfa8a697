"""The page: HTML for people, at `/`. Only `rendering` imports Jinja2, and only when a page is first requested."""
