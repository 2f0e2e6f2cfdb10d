// Talking to the server, and how others can. Every URL is relative, so the page works under any path prefix.

/** An error that the server stated, or that it is away; `retry` is after how many seconds to ask again. */
export class ApiError extends Error {
  constructor(message, status, param, retry) {
    super(message);
    this.status = status;
    this.param = param;
    this.retry = retry;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?", 0);
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok && body) return body;
  const stated = body?.error ?? {};
  const retry = Number(answer.headers.get("Retry-After")) || undefined;
  throw new ApiError(stated.message ?? `The server answered with status ${answer.status}.`, answer.status, stated.param, retry);
}

/** The models that are served; the first is the default. */
export async function models() {
  return (await ask("v1/models", { cache: "no-store" })).data;
}

/** Draw one picture: `{image, seed, prompt, warnings}`, `image` a data URL. */
export async function draw(request, signal) {
  const answer = await ask("v1/images/generations", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  const [picture] = answer.data;
  return {
    image: `data:image/png;base64,${picture.b64_json}`,
    seed: picture.seed,
    prompt: picture.revised_prompt,
    warnings: answer.warnings,
  };
}

function root() {
  return new URL(".", document.baseURI).href;
}

/** The request as a shell command that writes picture.png. */
export function asCurl(request) {
  const body = JSON.stringify(request).replaceAll("'", "'\\''");
  return `curl -sf ${root()}v1/images/generations -H 'Content-Type: application/json' \\\n  -d '${body}' \\\n  | python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))' > picture.png`;
}

/** The request for OpenAI's Python client. */
export function asPython(request) {
  const { model, prompt, ...extra } = request;
  return [
    "import base64",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${root()}v1`)}, api_key="none")`,
    "answer = client.images.generate(",
    `    model=${JSON.stringify(model)},`,
    `    prompt=${JSON.stringify(prompt)},`,
    `    extra_body=${JSON.stringify(extra)},`,
    ")",
    'open("picture.png", "wb").write(base64.b64decode(answer.data[0].b64_json))',
  ].join("\n");
}
