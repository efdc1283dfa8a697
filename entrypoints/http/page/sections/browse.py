"""Browse: what is cached, and what the registries have, as far as the viewer may know of it."""

from application.ports.upstream import SearchResult
from domain.digest import Digest
from domain.errors import ContentUnknown, DigestInvalid, NameInvalid, RegistryError, TagInvalid
from domain.image_details import HistoryStep, ImageConfiguration
from domain.names import Reference, RepositoryName
from domain.upstream_table import RegistryHint
from domain.upstreams import Source, Upstream
from domain.value import Value
from entrypoints.http.page.client_configurations import Registry
from entrypoints.http.page.image_names import registries_of
from entrypoints.http.page.section import Context, PageRequest, Section, View

_RESULTS = 25


class Place(Value, frozen=True):
    """The arguments of the request that name a repository. `registries`: all that the viewer can choose from."""

    registries: dict[Upstream, Registry]
    upstream: Upstream
    repository: RepositoryName | None

    @classmethod
    def of(cls, page: PageRequest) -> "Place":
        """Without a known registry, the place is the first one; without a valid repository, it has none."""
        registries = registries_of(page.container.upstreams(), page.hint)
        wanted = page.argument("registry")
        upstream = next(
            (one for one, registry in registries.items() if registry.name == wanted), next(iter(registries))
        )
        try:
            repository = RepositoryName(page.argument("repository"))
        except NameInvalid:
            repository = None
        return cls(registries, upstream, repository)

    @property
    def source(self) -> Source:
        """Raises ContentUnknown, as for a repository that the viewer may not know of."""
        if self.repository is None:
            raise _unknown()
        return Source(self.upstream, self.repository)


def _unknown() -> ContentUnknown:
    """The same for what does not exist, for what is not cached, and for what the viewer may not know of."""
    return ContentUnknown("nothing is cached under this name that you may know of")


async def _repositories(page: PageRequest) -> Context:
    place, term = Place.of(page), page.argument("q", 255).lower()
    after = Source(place.upstream, place.repository) if place.repository else None
    found = await page.container.browse_cache().repositories(
        page.viewer, tuple(place.registries), term, after, limit=_RESULTS
    )
    return {"term": term, "found": found, "registries": place.registries, "is_first": after is None}


async def _tags(page: PageRequest) -> Context:
    place = Place.of(page)
    found = await page.container.browse_cache().tags(page.viewer, place.source, page.argument("after", 128))
    if found is None:
        raise _unknown()
    return {"found": found, "registry": place.registries[place.upstream]}


async def _image(page: PageRequest) -> Context:
    place = Place.of(page)
    try:
        reference = Reference.parse(page.argument("reference"))
        platform = Digest.parse(wanted) if (wanted := page.argument("platform")) else None
    except (TagInvalid, DigestInvalid):
        raise _unknown() from None
    image = await page.container.browse_cache().image(page.viewer, place.source, reference, platform)
    if image is None:
        raise _unknown()
    return {
        "image": image,
        "reference": reference,
        "registry": place.registries[place.upstream],
        "registries": place.registries,
        "steps": steps_of_layers(image.configuration, len(image.parts)),
    }


async def _search(page: PageRequest) -> Context:
    place, term, problem = Place.of(page), page.argument("q", 255), ""
    registry, results = place.registries[place.upstream], tuple[SearchResult, ...]()
    hint = RegistryHint(page.hint.group, place.upstream)
    if term:
        try:
            results = await page.container.search()(page.viewer.caller, term, _RESULTS, hint)
        except RegistryError as error:
            problem = error.message
    return {"term": term, "registry": registry, "registries": place.registries, "results": results, "problem": problem}


def steps_of_layers(configuration: ImageConfiguration | None, layers: int) -> list[HistoryStep | None]:
    """The step of the build that made each layer; None where the history does not say it."""
    made = [step for step in configuration.history if step.has_layer] if configuration else []
    return list(made) if len(made) == layers else [None] * layers


BROWSE = Section(
    "browse",
    (
        View("/browse", "browse/repositories.html", _repositories),
        View("/browse/repository", "browse/tags.html", _tags),
        View("/browse/image", "browse/image.html", _image),
        View("/browse/search", "browse/search.html", _search),
    ),
)
