"""The start line."""

from entrypoints.server.start_line import by_mode


def test_upstreams_with_the_same_mode_are_grouped() -> None:
    anyone, gone = "trust row 5: everyone", "c.test cannot be reached"
    modes = [("https://a.test", anyone), ("https://c.test", gone), ("https://b.test", anyone)]
    assert by_mode(modes) == f"https://a.test, https://b.test ({anyone}); https://c.test ({gone})"
    assert by_mode(modes[:1]) == f"https://a.test ({anyone})"
