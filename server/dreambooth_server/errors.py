"""Errors in OpenAI's shape, whatever raised them."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


class ApiError(Exception):
    """An answer other than pictures."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers

    def answer(self) -> JSONResponse:
        """`{"error": {"message", "type", "param", "code"}}` with its status."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": _sendable(str(self)), "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, headers=dict(self.headers or {}))


def _sendable(text: str) -> str:
    """`text` without what UTF-8 cannot encode: names of unknown fields come from the client."""
    return text.encode("utf-8", "replace").decode()


def install_error_handlers(app: FastAPI) -> None:
    """Give every error of `app` OpenAI's shape."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.answer()


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        return ApiError(400, "The body is not JSON.", "invalid_json").answer()
    param = _sendable(".".join(str(part) for part in fault["loc"][1:]))[:64] or None
    if fault["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized request argument: {param}", "unknown_parameter", param).answer()
    code = "missing_required_parameter" if fault["type"] == "missing" else "invalid_value"
    where = param or "body: send a JSON object with Content-Type application/json"
    return ApiError(400, f"{where}: {fault['msg'].removeprefix('Value error, ')}", code, param).answer()


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "invalid_request")
    return ApiError(error.status_code, str(error.detail), code, headers=error.headers).answer()


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # uvicorn logs the error itself.
    return internal_error().answer()


def internal_error() -> ApiError:
    """What nobody foresaw."""
    return ApiError(500, "The server failed; its log says why.", "internal_error")
