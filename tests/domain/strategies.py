"""Values of the domain, valid by construction, and ways to spoil them."""

from hypothesis import strategies as st

from domain.access import Scope
from domain.challenge import Challenge

ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyz0123456789"
TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
HEX = "0123456789abcdef"

_runs = st.text(ALPHANUMERIC, min_size=1, max_size=6)
_separators = st.sampled_from([".", "_", "__", "-", "--", "------"])
_components = st.builds(
    lambda first, more: first + "".join(separator + run for separator, run in more),
    _runs,
    st.lists(st.tuples(_separators, _runs), max_size=3),
)
names = st.lists(_components, min_size=1, max_size=4).map("/".join)

tags = st.builds(
    lambda first, more: first + more,
    st.sampled_from(ALPHANUMERIC + "ABCXYZ_"),
    st.text(ALPHANUMERIC + "ABCXYZ_.-", max_size=127),
)

digests = st.sampled_from([("sha256", 64), ("sha384", 96), ("sha512", 128)]).flatmap(
    lambda kind: st.text(HEX, min_size=kind[1], max_size=kind[1]).map(lambda digits: f"{kind[0]}:{digits}")
)

actions = st.frozensets(st.sampled_from(["pull", "push", "delete", "*"]))
plain_scopes = st.builds(Scope, st.just("repository"), names, actions)
_hosted_names = st.builds(
    lambda host, port, name: f"{host}:{port}/{name}",
    st.sampled_from(["localhost", "mirror.example.com", "Mirror.Example.COM", "10.0.0.1"]),
    st.integers(1, 65535),
    names,
)
hosted_scopes = st.builds(Scope, st.just("repository"), _hosted_names, actions)
plugin_scopes = st.builds(Scope, st.just("repository"), names, actions, st.just("plugin"))
registry_scopes = st.builds(Scope, st.just("registry"), st.sampled_from(["catalog", "a:b:c"]), actions)
opaque_scopes = st.builds(Scope, st.sampled_from(["aws", "*", "openid", "https//x/y", "a=b,c"]))
scopes = st.one_of(plain_scopes, hosted_scopes, plugin_scopes, registry_scopes, opaque_scopes)

_words = st.text(TOKEN_CHARACTERS, min_size=1, max_size=8)
# A field value holds tabs, spaces and visible characters, and bytes of old encodings (RFC 9110 section 5.5).
_values = st.text(st.sampled_from("\t " + "".join(map(chr, [*range(0x21, 0x7F), *range(0xA0, 0x180)]))), max_size=20)
challenges = st.builds(
    lambda scheme, parameters: Challenge(scheme, tuple(parameters.items())),
    _words,
    st.dictionaries(_words.map(str.lower), _values, min_size=1, max_size=5),
)


@st.composite
def spoilt(draw: st.DrawFn, valid: st.SearchStrategy[str], alphabet: str) -> str:
    """A valid text with one character put in, taken away or replaced; it may still be valid."""
    text = draw(valid)
    position = draw(st.integers(0, len(text)))
    removed = draw(st.integers(0, 1))
    return text[:position] + draw(st.sampled_from(["", *alphabet])) + text[position + removed :]
