"""The playground: files of this package, and headers that let the page do nothing but talk to this server."""

from importlib.resources import files

from fastapi import APIRouter, HTTPException, Response

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_PARTS = ("page.css", "page.js", "api.js")
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
    return _file("index.html")


@router.get("/playground/{name}")
async def part(name: str) -> Response:
    """Its looks and its behaviour."""
    if name not in _PARTS:
        raise HTTPException(404, "There is no such file.")
    return _file(name)


def _file(name: str) -> Response:
    content = files("dreambooth_server").joinpath("playground", name).read_text()
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)
