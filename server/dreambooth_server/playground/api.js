// Talking to the server, and how others can. Every URL is relative, so the page works under any path prefix.

const KEY = `dreambooth:key:${new URL(".", document.baseURI).pathname}`;
// Behind a gateway: the way to its own URL, where the other subjects are; else nothing.
const GATEWAY = document.querySelector("meta[name=gateway]").content;

/** An error that the server stated, or that it is away; `retry` is after how many seconds to ask again. */
export class ApiError extends Error {
  constructor(message, status, param, retry) {
    super(message);
    this.status = status;
    this.param = param;
    this.retry = retry;
  }
}

/** The API key that requests carry: kept as long as this tab. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

async function fetched(path, options = {}) {
  const headers = { ...options.headers, ...(key.get() && { Authorization: `Bearer ${key.get()}` }) };
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?", 0);
  }
}

async function parsed(answer) {
  const body = await answer.json().catch(() => null);
  if (answer.ok && body) return body;
  const stated = body?.error ?? {};
  const retry = Number(answer.headers.get("Retry-After")) || undefined;
  throw new ApiError(stated.message ?? `The server answered with status ${answer.status}.`, answer.status, stated.param, retry);
}

/** The models that are served; the first is the default. `dreambooth` is null of those that sleep and were not seen yet. */
export async function models() {
  return (await parsed(await fetched("v1/models", { cache: "no-store" }))).data;
}

/** The other subjects of the gateway, `{id, url}`; none without one. */
export async function others() {
  if (!GATEWAY) return [];
  const { data } = await parsed(await fetched(`${GATEWAY}v1/models`, { cache: "no-store" }));
  const found = data.map(({ id }) => ({ id, url: `${GATEWAY}${id}/` }));
  return found.filter(({ url }) => new URL(url, document.baseURI).pathname !== new URL(".", document.baseURI).pathname);
}

/** Draw one picture: `{image, seed, prompt, steps, guidance_scale, warnings}`, `image` a data URL; `onStep(step, steps)` is told how far it is. */
export async function draw(request, signal, onStep) {
  const post = (body) => fetched("v1/images/generations", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const answer = await post({ ...request, stream: true });
  const drawn = answer.headers.get("Content-Type")?.startsWith("text/event-stream")
    ? await completed(answer.body, onStep)
    : await parsed(answer).catch(async (error) => {
        if (error.param !== "stream") throw error;
        return parsed(await post(request));
      });
  const [picture] = drawn.data;
  return {
    image: `data:image/png;base64,${picture.b64_json}`,
    seed: picture.seed,
    prompt: picture.revised_prompt,
    steps: drawn.steps,
    guidance_scale: drawn.guidance_scale,
    warnings: drawn.warnings,
  };
}

/** What a stream of events ends with. */
async function completed(stream, onStep) {
  for await (const { name, data } of events(stream)) {
    if (name === "image_generation.progress") onStep(data.step, data.steps);
    if (name === "image_generation.completed") return data;
    if (name === "error") throw new ApiError(data.error?.message ?? "Drawing failed.", 500, data.error?.param);
  }
  throw new ApiError("The connection ended before the picture was drawn.", 0);
}

/** Server-sent events as `{name, data}`. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}:`))?.slice(name.length + 1).trim();
      if (field("data")) yield { name: field("event"), data: JSON.parse(field("data")) };
    }
  }
}

function root() {
  return new URL(".", document.baseURI).href;
}

/** The request as a shell command that writes picture.png. */
export function asCurl(request) {
  const body = JSON.stringify(request).replaceAll("'", "'\\''");
  const access = key.get() ? ` -H "Authorization: Bearer $API_KEY"` : "";
  return `curl -sf ${root()}v1/images/generations${access} -H 'Content-Type: application/json' \\\n  -d '${body}' \\\n  | python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))' > picture.png`;
}

/** The request for OpenAI's Python client. */
export function asPython(request) {
  const { model, prompt, ...extra } = request;
  const access = key.get() ? 'os.environ["API_KEY"]' : '"none"';
  return [
    ...(key.get() ? ["import os"] : []),
    "import base64",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${root()}v1`)}, api_key=${access})`,
    "answer = client.images.generate(",
    `    model=${JSON.stringify(model)},`,
    `    prompt=${JSON.stringify(prompt)},`,
    `    extra_body=${JSON.stringify(extra)},`,
    ")",
    'open("picture.png", "wb").write(base64.b64decode(answer.data[0].b64_json))',
  ].join("\n");
}
