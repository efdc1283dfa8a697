import pytest

from domain.htpasswd import parse_htpasswd

# Of the passwords "alice-pass" and "bob-pass".
SALT = "QXQGgzqoys6n.stF7mTYf."
REST = "4/DbjY54H/A629iML/8i8Za7BQeGri6"
HASH = f"$2y$05${SALT}{REST}"
OTHER = HASH.replace("$05$", "$10$")


def refusal(text: str, *taken: str) -> str:
    with pytest.raises(ValueError, match=r"^(line \d+|contains no entry)") as refused:
        parse_htpasswd(text, taken)
    return str(refused.value)


def test_each_line_is_a_user_and_a_hash() -> None:
    assert parse_htpasswd(f"alice:{HASH}\nbob smith:{OTHER}\n") == {"alice": HASH, "bob smith": OTHER}


def test_comments_and_blank_lines_are_ignored() -> None:
    text = f"# who may pull\n\n  alice:{HASH}  \r\n \t\n  # bob:{OTHER}\n"
    assert parse_htpasswd(text) == {"alice": HASH}


@pytest.mark.parametrize("kind", ["2y", "2a", "2b"])
@pytest.mark.parametrize("cost", ["04", "05", "12", "17"])
def test_every_kind_of_bcrypt_hash_is_accepted(kind: str, cost: str) -> None:
    made = f"${kind}${cost}${SALT}{REST}"
    assert parse_htpasswd(f"é:{made}") == {"é": made}


@pytest.mark.parametrize(
    "hashed",
    [
        "secret",
        "$apr1$mX0bSx3S$QBmhW2sK1S1gQhRlNUc4j0",
        "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "rqXexS6ZhobKA",
        f"$2x$05${SALT}{REST}",
        f"$2$05${SALT}{REST}",
        f"$2y$03${SALT}{REST}",
        f"$2y$18${SALT}{REST}",
        f"$2y$31${SALT}{REST}",
        f"$2y$5${SALT}{REST}",
        HASH[:-1],
        f"{HASH}x",
        f"{HASH}:comment",
        f" {HASH}",
        f"$2y$05${SALT[:-1]}/{REST}",  # bcrypt itself takes no such salt
    ],
)
def test_every_other_hash_is_refused_with_its_line_number(hashed: str) -> None:
    assert (
        refusal(f"alice:{HASH}\n\nbob:{hashed}\n") == "line 3 does not contain a bcrypt hash (htpasswd -B creates one)"
    )


@pytest.mark.parametrize("line", ["bob", ":", f":{HASH}", "bob:", f"b\x07b:{HASH}", f"b\u2028b:{HASH}"])
def test_a_malformed_entry_is_refused_with_its_line_number(line: str) -> None:
    assert refusal(f"alice:{HASH}\n{line}\n") == "line 2 is not in the form user:hash"


def test_a_repeated_user_is_refused() -> None:
    assert refusal(f"alice:{HASH}\nbob:{HASH}\nalice:{OTHER}") == "line 3 repeats a user name of an earlier line"
    assert list(parse_htpasswd(f"alice:{HASH}\nAlice:{HASH}")) == ["alice", "Alice"]


def test_a_user_of_another_source_is_refused() -> None:
    assert refusal(f"bob:{HASH}\nalice:{HASH}", "alice") == "line 2 repeats a user name of ACCOUNTS or ADMIN_ACCOUNTS"


@pytest.mark.parametrize("text", ["", "\n", "# nobody\n\n"])
def test_a_file_without_users_is_refused(text: str) -> None:
    assert refusal(text) == "contains no entry"
