"""OpenAI's image request, with bounds, and the answer."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_PICTURES = 8
MAX_STEPS = 100
MAX_GUIDANCE = 30
MAX_PROMPT = 2000
MAX_SEED = 2**63 - 1 - MAX_PICTURES
_SIZE = re.compile(r"^([1-9][0-9]{0,4})x([1-9][0-9]{0,4})$")


def _has_words(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _is_unicode(text: str) -> str:
    # JSON can spell half a surrogate pair, which no encoding has.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must be valid Unicode")
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]


def _is_size(text: str) -> str:
    if text != "auto" and not _SIZE.match(text):
        raise ValueError("must be 'auto' or WIDTHxHEIGHT in pixels, such as 512x512")
    return text


class ImageRequest(BaseModel):
    """The body of `POST /v1/images/generations`.

    What OpenAI's API has and what makes no difference here is taken and ignored; what would change the answer and is
    not offered is refused, and so are misspelt fields.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt: Annotated[
        Text,
        AfterValidator(_has_words),
        Field(max_length=MAX_PROMPT, description="What to draw; the subject by its name, or its identifier and class."),
    ]
    model: Annotated[Text, Field(max_length=256)] | None = Field(
        None, description="A subject's name, or `base`. Absent: the first subject."
    )
    n: Annotated[int, Field(ge=1, le=MAX_PICTURES)] | None = Field(1, description="Pictures.")
    size: Annotated[str, AfterValidator(_is_size)] | None = Field(
        "auto", description="`WIDTHxHEIGHT`, pixels; `auto`: what the base was made for."
    )
    response_format: Literal["b64_json"] | None = Field("b64_json", description="Only `b64_json` is offered.")
    negative_prompt: Annotated[Text, Field(max_length=MAX_PROMPT)] | None = Field(None, description="What not to draw.")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        None, description="Seed of the first picture; each further one has the next. Absent: random."
    )
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = Field(
        None, description="Denoising steps. Absent: what suits the subject."
    )
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] | None = Field(
        None, description="How strictly the prompt is followed; at most 1: not guided. Absent: what suits the subject."
    )
    output_format: Literal["png"] | None = Field(None, description="Only `png` is offered.")
    scheduler: Literal["dpm++", "ddim", "euler", "euler_a", "unipc"] | None = Field(
        None, description="The sampler, by name. Absent: `dpm++`."
    )
    stream: bool | None = Field(
        None,
        description="Answer with server-sent events: `image_generation.progress` after each step, then "
        "`image_generation.completed` with the whole answer, or `error`.",
    )
    partial_images: Literal[0] | None = Field(None, description="Unfinished pictures are not offered.")
    background: Literal["auto", "opaque"] | None = Field(None, description="Transparency is not offered.")
    user: str | None = Field(None, description="Ignored.")
    quality: str | None = Field(None, description="Ignored: set `steps`.")
    style: str | None = Field(None, description="Ignored: say it in the prompt.")
    moderation: str | None = Field(None, description="Ignored.")
    output_compression: int | None = Field(None, description="Ignored: PNG loses nothing.")


class DrawnImage(BaseModel):
    """One picture."""

    b64_json: str = Field(description="The PNG, base64.")
    revised_prompt: str = Field(description="The words that the model was given.")
    seed: int = Field(description="The seed that draws it again.")


class ImagesAnswer(BaseModel):
    """The answer to an ImageRequest: OpenAI's fields, and what it takes to draw the same again."""

    created: int = Field(description="When, seconds since 1970.")
    data: list[DrawnImage]
    model: str
    size: str = Field(description="`WIDTHxHEIGHT`, pixels.")
    output_format: Literal["png"] = "png"
    steps: int
    guidance_scale: float
    warnings: list[str] = Field([], description="What was understood otherwise than it may have been meant.")


class Progress(BaseModel):
    """The data of an `image_generation.progress` event."""

    type: Literal["image_generation.progress"] = "image_generation.progress"
    step: int = Field(description="Steps that are done.")
    steps: int = Field(description="Steps that there are.")


class SubjectCard(BaseModel):
    """What a client may want to know of a model, beside OpenAI's fields."""

    identifier: str | None = Field(description="The word that means the subject; null for the base.")
    class_name: str | None = Field(description="The noun of its class; null for the base.")
    digest: str = Field(description="`sha256:<hex>` of the artifact, or of the base.")
    base: str = Field(description="Where the base came from.")
    method: str | None = Field(description="LoRA or Full; null for the base.")
    resolution: int = Field(description="Side of a picture with size `auto`, pixels.")
    size_multiple: int = Field(description="Sides must be multiples of it, pixels.")
    steps: int = Field(description="Steps when none are asked for.")
    guidance_scale: float = Field(description="Guidance when none is asked for.")
    prompt_tokens: int = Field(description="Tokens of a prompt that are read.")
    scores: dict[str, float] = Field(description="Measured scores.")
    examples: list[str] = Field(description="Prompts to begin with.")


class ModelEntry(BaseModel):
    """One entry of `GET /v1/models`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    dreambooth: SubjectCard | None = Field(
        description="null from a gateway that has not seen the model awake: a list wakes nobody."
    )


class ModelList(BaseModel):
    """`GET /v1/models`; the first is the default."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """OpenAI's error shape."""

    error: ErrorBody


SSE = "text/event-stream"
# Of a streamed answer no schema is told: OpenAPI 3.1 has none for events.
STREAMED: dict[str, Any] = {"content": {SSE: {}}}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (400, 404, 413, 422, 429, 500, 503)
}


def parse_size(size: str | None, side: int) -> tuple[int, int]:
    """Width and height, pixels; `side` both ways for `auto`. `size` has passed ImageRequest."""
    match = _SIZE.match(size or "auto")
    return (int(match[1]), int(match[2])) if match else (side, side)
