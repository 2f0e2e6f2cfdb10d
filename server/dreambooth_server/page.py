"""The playground: files of this package, and headers that let the page do nothing but talk to this server."""

from importlib.resources import files

from fastapi import APIRouter, HTTPException, Response

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_PARTS = ("page.css", "page.js", "api.js", "dom.js", "history.js")
_NO_GATEWAY = '<meta name="gateway" content="">'
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> Response:
    """The page."""
    return index_page()


@router.get("/playground/{name}")
async def part(name: str) -> Response:
    """Its looks and its behaviour."""
    return part_of_page(name)


def index_page(gateway: str = "") -> Response:
    """The page; `gateway` is the way from it to the URL of the gateway that it is behind, if it is."""
    content = _read("index.html").replace(_NO_GATEWAY, f'<meta name="gateway" content="{gateway}">')
    return Response(content, media_type=_TYPES["html"], headers=_HEADERS)


def part_of_page(name: str) -> Response:
    """A file that the page loads. Raises HTTPException 404."""
    if name not in _PARTS:
        raise HTTPException(404, "There is no such file.")
    return Response(_read(name), media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)


def _read(name: str) -> str:
    return files("dreambooth_server").joinpath("playground", name).read_text()
