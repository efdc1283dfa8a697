"""Use it: what to configure in a client, and which commands to type, for this mirror.

The first section, because a person who has just started a mirror opens its address.
"""

from domain.errors import RegistryError
from entrypoints.http.page.client_configurations import CLIENTS, Image, Mirror
from entrypoints.http.page.image_names import example_of, parse_image, problem_of, registries_of
from entrypoints.http.page.section import Context, PageRequest, Section, View


async def _page(page: PageRequest) -> Context:
    table = page.container.upstreams()
    registries = registries_of(table, page.hint)
    mirror = Mirror(page.host, page.scheme == "https", tuple(registries.values()), page.settings.has_accounts)
    typed, problem = page.argument("image"), None
    image = example_of(mirror.registries[0])
    if typed:
        try:
            source, reference = parse_image(typed, table, page.hint, page.host)
            image = Image(registries[source.upstream], str(source.repository), reference.suffix)
        except RegistryError as error:
            problem = problem_of(error)
    client = page.argument("client")
    client = client if client in CLIENTS else next(iter(CLIENTS))
    return {
        "mirror": mirror,
        "image": image,
        "typed": typed,
        "problem": problem,
        "clients": tuple(CLIENTS),
        "client": client,
        "steps": tuple(CLIENTS[client](mirror, image)),
    }


USE_IT = Section("use_it", (View("/", "use_it/page.html", _page),))
