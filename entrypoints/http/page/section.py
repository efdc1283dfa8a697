"""What a section of the page is: its paths, their templates, and the code that collects what a template shows."""

from collections.abc import Awaitable, Callable, Mapping

from application.page.viewer import Viewer
from application.ports.reloads import Reloads
from domain.upstream_table import RegistryHint
from domain.value import Value
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container


class PageRequest(Value, frozen=True):
    """One request for a page. `viewer`: whose login it has; `hint`: the registry that its host name means; `scheme` and
    `host`: the address at which the viewer reaches the service; `arguments`: the first value of each query parameter,
    or of each field of the form for an action; `reloads`: None if the settings cannot be reloaded from here.
    """

    viewer: Viewer
    hint: RegistryHint
    scheme: str
    host: str
    arguments: Mapping[str, str]
    settings: Settings
    container: Container
    reloads: Reloads | None = None

    def argument(self, name: str, limit: int = 512) -> str:
        """The value of the query parameter, without spaces around it; "" if it is missing or longer than `limit`
        characters.
        """
        value = self.arguments.get(name, "").strip()
        return value if len(value) <= limit and value.isprintable() else ""


Context = Mapping[str, object]
"""The variables of a template."""


class View(Value, frozen=True):
    """A path of a section. `template`: a file below `templates`; `context`: collects its variables, and may raise a
    RegistryError, which is shown as a page. `live`: the template of the part of the page that an event stream at
    `PATH/events` keeps up to date, "" if there is none.
    """

    path: str
    template: str
    context: Callable[[PageRequest], Awaitable[Context]]
    live: str = ""


class Action(Value, frozen=True):
    """A form that changes something. `act` returns the path of the page that shows the result, and may raise a
    RegistryError. It is called only for an operator and a valid form: see form_checks.py.
    """

    path: str
    act: Callable[[PageRequest], Awaitable[str]]


class Question(Value, frozen=True):
    """A form whose answer is a page. It changes nothing, but what it contains must not become part of an address, which
    browsers and access logs keep. It is checked as the form of an Action is.
    """

    path: str
    template: str
    context: Callable[[PageRequest], Awaitable[Context]]


class Section(Value, frozen=True):
    """A part of the page. To add one, write a module below `sections`, its templates, and its texts with the title
    `NAME.title` in `texts.toml`, and add it to `SECTIONS` in `entrypoints/http/page/routes.py`.

    `views`: the first is the one that the navigation links to. The others may be parts of a page that the browser
    fetches later. `is_for_operators`: unknown without ADMIN_ACCOUNTS, and only operators see it. Only such a section
    has actions and questions.
    """

    name: str
    views: tuple[View, ...]
    actions: tuple[Action, ...] = ()
    questions: tuple[Question, ...] = ()
    is_for_operators: bool = False
