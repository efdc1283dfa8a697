"""The sections of the page. Each is one module with its templates in `templates/SECTION`."""
