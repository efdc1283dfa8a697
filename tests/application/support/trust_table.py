"""What every caller meets in every row of the trust table (docs/explanation/trust.md), written out.

A cell is `what the caller meets/with which right the upstream was asked`.

What the caller meets: `ok`; or a 401 with
`own` our Bearer challenge, `re` the upstream's with our realm, `up` the upstream's own, `basic` our Basic one;
`!` after it stands for error="invalid_token", `?` for error="insufficient_scope".

The right: `-` the upstream was not asked, `bare` without Authorization, `raw` with the caller's header as it came,
`half` with the upstream's half of a countersigned token, `login` with a session for the caller's credentials,
`nobody` with an anonymous session of ours, `mirror` with the mirror's own identity.
"""

TARGETS = ("ping", "manifest", "blob", "tags", "catalog", "search")

_PASSED_TO_OPEN = """
nothing                     : all ok/bare
own                         : all ok/raw
own of another scope        : all ok/raw
own expired                 : all ok/raw
countersigned               : all ok/raw
countersigned other scope   : all ok/raw
countersigned expired       : all ok/raw
signed half alone           : all ok/raw
another upstream half       : all ok/raw
foreign                     : all ok/raw
basic right                 : all ok/raw
basic wrong                 : all ok/raw
unreadable                  : all ok/raw
"""
_PASSED_TO_BEARER = """
nothing                     : all up/bare
own                         : all up/raw
own of another scope        : all up/raw
own expired                 : all up/raw
countersigned               : all up/raw
countersigned other scope   : all up/raw
countersigned expired       : all up/raw
signed half alone           : all up/raw
another upstream half       : all up/raw
foreign                     : all ok/raw
basic right                 : all up/raw
basic wrong                 : all up/raw
unreadable                  : all up/raw
"""
_PASSED_TO_BASIC = """
nothing                     : all up/bare
own                         : all up/raw
own of another scope        : all up/raw
own expired                 : all up/raw
countersigned               : all up/raw
countersigned other scope   : all up/raw
countersigned expired       : all up/raw
signed half alone           : all up/raw
another upstream half       : all up/raw
foreign                     : all up/raw
basic right                 : all ok/raw
basic wrong                 : all up/raw
unreadable                  : all up/raw
"""
# A ping with somebody else's token is no login: whoever asks nothing would take any text for good.
_ROW_2 = """
nothing                     : own/-  ok/bare ok/bare ok/bare ok/bare ok/bare
own                         : ok/-   ok/bare ok/bare ok/bare ok/bare ok/bare
own of another scope        : ok/-   own?/-  own?/-  own?/-  own?/-  own?/-
own expired                 : all own!/-
countersigned               : all own!/-
countersigned other scope   : all own!/-
countersigned expired       : all own!/-
signed half alone           : all own!/-
another upstream half       : all own!/-
foreign                     : own!/- ok/raw  ok/raw  ok/raw  ok/raw  ok/raw
basic right                 : own/-  own/-   own/-   own/-   own/-   ok/bare
basic wrong                 : own/-  own/-   own/-   own/-   own/-   ok/bare
unreadable                  : all own/-
"""
_ROW_3 = """
nothing                     : re/-      re/-      re/-      ok/nobody ok/nobody ok/nobody
own                         : ok/nobody ok/nobody ok/nobody ok/nobody ok/nobody ok/nobody
own of another scope        : ok/nobody re?/-     re?/-     re?/-     re?/-     re?/-
own expired                 : all re!/-
countersigned               : all re!/-
countersigned other scope   : all re!/-
countersigned expired       : all re!/-
signed half alone           : all re!/-
another upstream half       : all re!/-
foreign                     : all ok/raw
basic right                 : re/-      re/-      re/-      re/-      re/-      ok/nobody
basic wrong                 : re/-      re/-      re/-      re/-      re/-      ok/nobody
unreadable                  : all re/-
"""
_ROW_5 = """
nothing                     : own/-  ok/mirror ok/mirror ok/mirror ok/mirror ok/mirror
own                         : ok/-   ok/mirror ok/mirror ok/mirror ok/mirror ok/mirror
own of another scope        : ok/-   own?/-    own?/-    own?/-    own?/-    own?/-
own expired                 : all own!/-
countersigned               : all own!/-
countersigned other scope   : all own!/-
countersigned expired       : all own!/-
signed half alone           : all own!/-
another upstream half       : all own!/-
foreign                     : all own!/-
basic right                 : own/-  own/-     own/-     own/-     own/-     ok/mirror
basic wrong                 : own/-  own/-     own/-     own/-     own/-     ok/mirror
unreadable                  : all own/-
"""
# `docker search` knows Basic only, so where accounts are checked, that is what it is asked for.
_ROW_6 = """
nothing                     : own/-  own/-     own/-     own/-     own/-     basic/-
own                         : ok/-   ok/mirror ok/mirror ok/mirror ok/mirror ok/mirror
own of another scope        : ok/-   own?/-    own?/-    own?/-    own?/-    basic/-
own expired                 : own!/- own!/-    own!/-    own!/-    own!/-    basic/-
countersigned               : own!/- own!/-    own!/-    own!/-    own!/-    basic/-
countersigned other scope   : own!/- own!/-    own!/-    own!/-    own!/-    basic/-
countersigned expired       : own!/- own!/-    own!/-    own!/-    own!/-    basic/-
signed half alone           : own!/- own!/-    own!/-    own!/-    own!/-    basic/-
another upstream half       : own!/- own!/-    own!/-    own!/-    own!/-    basic/-
foreign                     : own!/- own!/-    own!/-    own!/-    own!/-    basic/-
basic right                 : ok/-   ok/mirror ok/mirror ok/mirror ok/mirror ok/mirror
basic wrong                 : own/-  own/-     own/-     own/-     own/-     basic/-
unreadable                  : own/-  own/-     own/-     own/-     own/-     basic/-
"""
_ROW_7 = """
nothing                     : re/-     re/-     re/-     re/-     re/-     basic/-
own                         : re!/-    re!/-    re!/-    re!/-    re!/-    basic/-
own of another scope        : re!/-    re!/-    re!/-    re!/-    re!/-    basic/-
own expired                 : re!/-    re!/-    re!/-    re!/-    re!/-    basic/-
countersigned               : ok/half  ok/half  ok/half  ok/half  ok/half  ok/half
countersigned other scope   : ok/half  re?/-    re?/-    re?/-    re?/-    basic/-
countersigned expired       : re!/-    re!/-    re!/-    re!/-    re!/-    basic/-
signed half alone           : re!/-    re!/-    re!/-    re!/-    re!/-    basic/-
another upstream half       : re!/-    re!/-    re!/-    re!/-    re!/-    basic/-
foreign                     : re!/-    re!/-    re!/-    re!/-    re!/-    basic/-
basic right                 : ok/login ok/login ok/login ok/login ok/login ok/login
basic wrong                 : re/-     re/-     re/-     re/-     re/-     basic/-
unreadable                  : re/-     re/-     re/-     re/-     re/-     basic/-
"""
_ROW_8 = """
nothing                     : all basic/-
own                         : all basic/-
own of another scope        : all basic/-
own expired                 : all basic/-
countersigned               : all basic/-
countersigned other scope   : all basic/-
countersigned expired       : all basic/-
signed half alone           : all basic/-
another upstream half       : all basic/-
foreign                     : all basic/-
basic right                 : all ok/raw
basic wrong                 : all basic/-
unreadable                  : all basic/-
"""
# The row, the upstream's scheme, the identity (None: by default the client's), whether accounts are checked.
ROWS = {
    "1 open": (1, "none", None, False, _PASSED_TO_OPEN),
    "1 bearer": (1, "bearer", None, False, _PASSED_TO_BEARER),
    "1 basic": (1, "basic", None, False, _PASSED_TO_BASIC),
    "2": (2, "none", None, False, _ROW_2),
    "3": (3, "bearer", None, False, _ROW_3),
    "4": (4, "basic", None, False, _PASSED_TO_BASIC),
    "5 anonymous": (5, "bearer", "anonymous", False, _ROW_5),
    "5 service bearer": (5, "bearer", "service", False, _ROW_5),
    "5 service basic": (5, "basic", "service", False, _ROW_5),
    "6 client": (6, "none", None, True, _ROW_6),
    "6 anonymous": (6, "bearer", "anonymous", True, _ROW_6),
    "6 service": (6, "basic", "service", True, _ROW_6),
    "7": (7, "bearer", None, True, _ROW_7),
    "8": (8, "basic", None, True, _ROW_8),
}


def lines() -> list[tuple[str, str, list[str]]]:
    """Every line: row, caller, and a cell for each of TARGETS."""
    found = []
    for row, (*_, grid) in ROWS.items():
        for line in grid.strip().splitlines():
            caller, _, words = line.partition(":")
            cells = words.replace("all ", "").split() * (len(TARGETS) if " all " in words else 1)
            found.append((row, caller.strip(), cells))
    return found
