// The page: a form, a stage for pictures, and the history. `api.js` does the talking, `history.js` the keeping.

import { ApiError, asCurl, asPython, draw, key, models, others } from "./api.js";
import { $, crisp, element, figure, option } from "./dom.js";
import { forget, keep, recall } from "./history.js";

const BASE = "base";
const SEEDS = 2 ** 32;
const PATIENCE = 3; // seconds without a word until the page says that it waits

const state = { served: [], running: null, secondsPerStep: null, steps: [], history: [], shown: null };
// Fields that a person has set: what arrives later leaves them as they are, and the one being written in.
const touched = new Set();

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const closed = (error) => error.status === 401 || error.status === 403;
const subject = () => state.served.find((entry) => entry.id === $("model").value) ?? state.served[0];

// What suits a subject that sleeps, only its replica knows: what nobody has set is left to it.
const stated = (id) => !state.served.length || subject().dreambooth !== null || touched.has(id);

// ---- beginning ----

async function begin() {
  for (;;) {
    try {
      state.served = await models();
      break;
    } catch (error) {
      setState(...(error.status === 503 ? ["loading", "Loading the model …"] : ["away", closed(error) && !key.get() ? "An API key is needed." : error.message]));
      await (closed(error) ? enteredKey() : sleep(Math.min(error.retry ?? 2, 2)));
    }
  }
  const subjects = state.served.filter((entry) => entry.id !== BASE);
  $("model").replaceChildren(...subjects.map(({ id }) => option(id)));
  chooseSubject();
  $("model-field").hidden = subjects.length < 2;
  for (const entry of recall().reverse()) list(entry);
  showOthers();
  $("draw").disabled = false;
  $("key-field").hidden = true;
  showStanding();
}

function showStanding() {
  setState("ready", subject().dreambooth ? "Ready" : "Asleep: the first picture wakes it");
}

/** Read anew what is served, now that a replica is awake that can tell. */
async function learn() {
  state.served = await models().catch(() => state.served);
  chooseSubject();
  showStanding();
}

/** Resolves when a key was entered; the next request carries it. */
function enteredKey() {
  const field = $("key");
  $("key-field").hidden = false;
  return new Promise((resolve) => {
    field.addEventListener("change", () => resolve(key.set(field.value.trim())), { once: true });
  });
}

async function showOthers() {
  const found = await others().catch(() => []); // The page is whole without them.
  if (!found.length) return;
  const group = element("optgroup", { label: "Other subjects" }, ...found.map(({ id, url }) => option(url, id)));
  $("model").append(group);
  $("model-field").hidden = false;
}

function setState(name, text) {
  $("state").dataset.state = name;
  $("state-text").textContent = text;
}

function chooseSubject() {
  const chosen = $("model").value;
  if (!state.served.some((entry) => entry.id === chosen)) {
    if (chosen) location.assign(chosen);
    return;
  }
  const { id, dreambooth: card } = subject();
  const name = id.split("@")[0];
  const comparable = state.served.filter((entry) => entry.id !== id && (entry.id === BASE || entry.id.split("@")[0] === name));
  const compared = $("compare").value;
  $("compare").replaceChildren(option("", "nothing"), ...comparable.map((entry) => option(entry.id)));
  if (comparable.some((entry) => entry.id === compared)) $("compare").value = compared;
  $("heading").textContent = id;
  document.title = `${id} · DreamBooth`;
  if (card) describe(name, card);
  else describeSleeper(name);
  showSettings();
}

function describe(name, card) {
  suggest("prompt", card.examples[0]);
  $("prompt-hint").textContent = `Call it “${name}”: the model knows it as “${card.identifier} ${card.class_name}”.`;
  suggest("steps", card.steps);
  suggest("guidance", card.guidance_scale);
  $("examples").replaceChildren(...card.examples.map(exampleButton));
  const scores = Object.entries(card.scores).map(([name, value]) => ` · ${name} ${value.toFixed(3)}`).join("");
  $("origin").textContent = `${card.method} of ${card.base} · ${card.resolution}×${card.resolution} pixels${scores} · artifact ${card.digest.slice(0, 19)}`;
}

function describeSleeper(name) {
  suggest("prompt", `a photo of ${name}`);
  $("prompt-hint").textContent = `Call it “${name}”.`;
}

function suggest(id, value) {
  if (!touched.has(id) && document.activeElement !== $(id)) $(id).value = value;
}

function exampleButton(prompt) {
  const short = prompt.replace(/^a photo of /, "");
  const button = element("button", { type: "button", textContent: short, title: prompt });
  button.addEventListener("click", () => {
    $("prompt").value = prompt;
    $("prompt").focus();
    showSettings();
  });
  return element("li", {}, button);
}

// ---- the request ----

function request(model, seed) {
  const asked = { model, prompt: $("prompt").value, seed };
  if (stated("steps")) asked.steps = Number($("steps").value);
  if (stated("guidance")) asked.guidance_scale = Number($("guidance").value);
  if ($("negative").value.trim()) asked.negative_prompt = $("negative").value;
  return asked;
}

function showSettings() {
  $("steps-value").textContent = stated("steps") ? $("steps").value : "auto";
  $("guidance-value").textContent = stated("guidance") ? Number($("guidance").value).toFixed(1) : "auto";
  if (!state.served.length) return;
  const seed = $("seed").value === "" ? state.shown?.results[0].seed ?? 0 : Number($("seed").value);
  $("curl").textContent = asCurl(request(subject().id, seed));
  $("python").textContent = asPython(request(subject().id, seed));
}

function chosenSeed() {
  if ($("seed").value !== "") return Number($("seed").value);
  return crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS;
}

async function start() {
  if (state.running || !state.served.length || !$("form").reportValidity()) return;
  const aborter = new AbortController();
  state.running = aborter;
  const names = [subject().id, ...($("compare").value ? [$("compare").value] : [])];
  const seed = chosenSeed();
  const requests = names.map((name) => request(name, seed));
  state.steps = [];
  showWorking(requests);
  const began = performance.now();
  const clock = setInterval(() => showElapsed(began, requests), 100);
  try {
    const results = await Promise.all(requests.map((asked, i) => draw(asked, aborter.signal, (...told) => (state.steps[i] = told))));
    const seconds = (performance.now() - began) / 1000;
    const [{ steps, guidance_scale }] = results;
    state.secondsPerStep = seconds / (steps * requests.length);
    remember({ requests: requests.map((asked) => ({ steps, guidance_scale, ...asked })), results, seconds });
    if (!subject().dreambooth) await learn();
  } catch (error) {
    aborter.abort();
    showError(error);
  } finally {
    clearInterval(clock);
    state.running = null;
    showIdle();
  }
}

// ---- the stage ----

function showWorking(requests) {
  $("alert").hidden = true;
  $("draw").disabled = true;
  $("draw").textContent = "Drawing …";
  $("cancel").hidden = $("working").hidden = false;
  $("progress").removeAttribute("value");
  $("announce").textContent = "Drawing.";
  $("working-text").textContent = requests.length > 1 ? "Drawing two pictures …" : "Drawing …";
  $("pictures").classList.add("stale");
  if (matchMedia("(max-width: 820px)").matches) $("stage").scrollIntoView({ block: "start", behavior: "smooth" });
  if ($("empty")) $("empty").replaceWith(...requests.map((asked) => figure(asked.model, null, "")));
}

function showElapsed(began, requests) {
  const seconds = (performance.now() - began) / 1000;
  $("elapsed").textContent = `${seconds.toFixed(1)} s`;
  const told = state.steps.filter(Boolean);
  if (told.length) {
    const done = told.reduce((sum, [step, steps]) => sum + step / steps, 0) / requests.length;
    const [step, steps] = told.at(-1);
    $("progress").value = done;
    $("working-text").textContent = `Step ${step} of ${steps}`;
  } else if (state.secondsPerStep && requests[0].steps) {
    const expected = state.secondsPerStep * requests[0].steps * requests.length;
    $("progress").value = Math.min(0.97, seconds / expected);
  } else if (seconds > PATIENCE) {
    $("working-text").textContent = "Waiting for a replica …";
  }
}

function showIdle() {
  $("draw").disabled = false;
  $("draw").textContent = "Draw";
  $("cancel").hidden = $("working").hidden = true;
  $("elapsed").textContent = "";
  $("pictures").classList.remove("stale");
  if (!state.shown) $("pictures").replaceChildren(emptyStage);
}

function showError(error) {
  if (error.name === "AbortError") {
    $("announce").textContent = "Cancelled.";
    return;
  }
  if (!(error instanceof ApiError)) throw error;
  if (closed(error)) enteredKey();
  const advice = error.status === 429 ? ` Try again in ${error.retry ?? 5} s.` : "";
  $("alert").textContent = error.message + advice;
  $("alert").hidden = false;
}

function show(entry) {
  const { requests, results, seconds } = entry;
  state.shown = entry;
  const withBase = requests.some((asked) => asked.model === BASE);
  const labels = requests.map((asked) => (asked.model === BASE ? "not personalised" : withBase ? "personalised" : ""));
  $("pictures").replaceChildren(...results.map((result, i) => figure(requests[i].model, result, labels[i])));
  $("read").textContent = `The model read: ${results[0].prompt}`;
  $("numbers").textContent = `seed ${results[0].seed} · ${requests[0].steps} steps · guidance ${requests[0].guidance_scale} · ${seconds.toFixed(1)} s`;
  $("warnings").replaceChildren(...results[0].warnings.map((text) => element("li", { textContent: text })));
  $("download").href = results[0].image;
  $("download").download = `${requests[0].model}-${results[0].seed}.png`;
  $("facts").hidden = false;
  for (const button of $("history").querySelectorAll("button")) button.ariaCurrent = String(button.entry === entry);
  showSettings();
}

// ---- the history ----

function remember(entry) {
  list(entry);
  show(entry);
  const kept = keep(state.history);
  state.history.length = kept.length;
  while ($("history").children.length > kept.length) $("history").lastElementChild.remove();
  $("announce").textContent = `Done in ${entry.seconds.toFixed(1)} seconds.`;
}

function list(entry) {
  state.history.unshift(entry);
  const [first] = entry.results;
  const picture = crisp({ src: first.image, alt: "" });
  const button = element("button", { type: "button", entry, ariaLabel: `Show and use again: ${entry.requests[0].prompt}, seed ${first.seed}` });
  button.append(picture, element("span", { textContent: entry.requests[0].prompt }));
  button.addEventListener("click", () => reuse(entry));
  $("history").prepend(element("li", {}, button));
  $("history-section").hidden = false;
}

function clearHistory() {
  forget();
  state.history = [];
  $("history").replaceChildren();
  $("history-section").hidden = true;
  $("announce").textContent = "The history is empty.";
}

function reuse(entry) {
  const [asked] = entry.requests;
  // A revision of an earlier visit may be gone.
  if (asked.model !== $("model").value && state.served.some((entry) => entry.id === asked.model)) {
    $("model").value = asked.model;
    chooseSubject();
  }
  $("prompt").value = asked.prompt;
  $("negative").value = asked.negative_prompt ?? "";
  $("steps").value = asked.steps;
  $("guidance").value = asked.guidance_scale;
  $("seed").value = asked.seed;
  for (const id of ["steps", "guidance"]) touched.add(id);
  const compared = entry.requests[1]?.model ?? "";
  if ([...$("compare").options].some(({ value }) => value === compared)) $("compare").value = compared;
  $("alert").hidden = true;
  show(entry);
}

async function copy(button) {
  const text = $(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    // Without TLS there is no clipboard: the text is marked instead, for the keyboard.
    getSelection().selectAllChildren(text);
    button.textContent = "Press Ctrl+C";
  }
  await sleep(1.6);
  button.textContent = "Copy";
}

const emptyStage = $("empty");
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
$("form").addEventListener("input", (event) => {
  touched.add(event.target.id);
  showSettings();
});
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
});
$("model").addEventListener("change", chooseSubject);
$("forget").addEventListener("click", clearHistory);
$("cancel").addEventListener("click", () => state.running?.abort());
$("keep").addEventListener("click", () => {
  $("seed").value = state.shown.results[0].seed;
  showSettings();
  $("announce").textContent = "The next picture has this seed too.";
});
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
begin();
