// The chat page: one conversation with one model, kept in this page's memory and nowhere else.

import { render } from "./markdown.js";

const $ = (id) => document.getElementById(id);
const FRAME_MS = 60; // between two drawings of an answer that is being written
const NEAR = 80; // pixels from the end at which the page follows what is written
const THEMES = ["auto", "light", "dark"];

const state = {
  messages: [], // what the model is told: {role, content}
  model: null, // an entry of /api/tags
  running: null, // AbortController of the answer that is being written
};

// -- the server ------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const response = await fetch(path, { cache: "no-store", ...options, headers });
  if (response.ok) return response;
  throw new Error(await reason(response));
}

async function reason(response) {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : error.message;
  } catch {
    return text || `the server answered ${response.status}`;
  }
}

/** The objects of a body in NDJSON, one by one as they come. */
async function* objects(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
  if (rest) yield JSON.parse(rest);
}

// -- models, and where they come from --------------------------------------------------------------

async function loadModels() {
  const picker = $("model");
  try {
    const { models } = await (await ask("/api/tags")).json();
    const usable = models.filter((model) => (model.capabilities ?? ["completion"]).includes("completion"));
    picker.replaceChildren(...usable.map((model) => {
      const option = new Option(model.name, model.name);
      option.model = model;
      return option;
    }));
    if (!usable.length) throw new Error("There is no model here yet that can chat. Import a bundle first.");
    const wanted = new URLSearchParams(location.search).get("model");
    if (usable.some((model) => model.name === wanted)) picker.value = wanted;
    picker.disabled = false;
    say("");
    await choose();
  } catch (error) {
    picker.replaceChildren(new Option("none"));
    picker.disabled = true;
    state.model = null;
    say(error.message);
    if (/key/i.test(error.message)) toggle("settings", true);
  }
  settle();
}

async function choose() {
  state.model = $("model").selectedOptions[0]?.model ?? null;
  $("think-row").hidden = !state.model?.capabilities?.includes("thinking");
  settle();
  if (!state.model) return;
  const name = state.model.name;
  try {
    const origin = await (await ask(`/api/provenance?model=${encodeURIComponent(name)}`)).json();
    if (state.model?.name === name) showOrigin(origin);
  } catch (error) {
    mark("unknown", `Origin unknown: ${error.message}`);
    $("origin-facts").replaceChildren();
  }
}

function showOrigin(origin) {
  const [last] = origin.arrivals;
  const warning = $("origin-warning");
  warning.hidden = !origin.withdrawn && (!last || origin.trusted);
  if (origin.withdrawn) {
    const { action, by, reason } = origin.withdrawn;
    mark("bad", `${action} by ${by}`);
    warning.textContent = `${action} by ${by}: ${reason}`;
  } else if (!last) {
    mark("unsigned", origin.made ? `${origin.made.how} here, signed by nobody` : "Signed by nobody");
  } else if (!origin.trusted) {
    mark("unsigned", `${last.publisher}, no longer trusted`);
    warning.textContent = "The publisher that signed it is no longer trusted at this site.";
  } else {
    mark("signed", `Signed by ${last.publisher}, imported ${day(last.imported_at)}`);
  }
  const facts = [["Model", origin.model], ["Digest", origin.digest], ["License", origin.license]];
  if (last) {
    facts.push(
      ["Publisher", last.publisher],
      ["Pinned root", last.fingerprint],
      ["Signed as", `${last.signer} (${last.name})`],
      ["Keys", last.keys.join("\n")],
      ["Imported", moment(last.imported_at)],
      ["Bundle", `${last.bundle}, number ${last.sequence}`],
      ["Receipt", last.receipt],
    );
    if (origin.arrivals.length > 1) facts.push(["Earlier imports", String(origin.arrivals.length - 1)]);
  }
  if (origin.made) {
    const { how, source, by, at } = origin.made;
    facts.push(["Made", `${how} from ${source} by ${by}, ${moment(at)}`]);
  }
  $("origin-facts").replaceChildren(
    ...facts.filter(([, value]) => value).flatMap(([name, value]) => [
      element("dt", name),
      element("dd", value),
    ]),
  );
}

function mark(kind, text) {
  $("origin-toggle").dataset.kind = kind;
  $("origin-mark").textContent = { signed: "✓", unsigned: "!", bad: "✕", unknown: "?" }[kind];
  $("origin-short").textContent = text;
}

const day = (text) => text.slice(0, 10);
const moment = (text) => `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;

// -- the conversation ------------------------------------------------------------------------------

async function send() {
  const content = $("prompt").value.trim();
  if (!content || !state.model || state.running) return;
  if (!$("settings").checkValidity()) {
    toggle("settings", true); // what cannot be shown cannot be told either
    $("settings").reportValidity();
    say("A setting is out of its range.");
    return;
  }
  $("prompt").value = "";
  fit();
  state.messages.push({ role: "user", content });
  bubble("user", "You").body.append(render(content));
  await answer();
}

async function answer() {
  const model = state.model;
  const shown = bubble("assistant", model.name);
  const text = { content: "", thinking: "" };
  const running = new AbortController();
  state.running = running;
  settle();
  say("Answering …");
  const draw = drawer(shown, text);
  let last = null;
  let failed = "";
  try {
    const response = await ask("/api/chat", {
      method: "POST",
      body: JSON.stringify(request(model)),
      signal: running.signal,
    });
    for await (const piece of objects(response)) {
      if (piece.error) throw new Error(piece.error);
      text.content += piece.message?.content ?? "";
      text.thinking += piece.message?.thinking ?? "";
      if (piece.done) last = piece;
      else draw();
    }
    if (!last) throw new Error("the answer broke off");
  } catch (error) {
    if (!running.signal.aborted) failed = error.message;
  }
  draw.now();
  state.running = null;
  conclude(shown, text, last, failed, running.signal.aborted);
  settle();
}

function request(model) {
  const messages = [...state.messages];
  const system = $("system").value.trim();
  if (system) messages.unshift({ role: "system", content: system });
  const options = {};
  for (const field of document.querySelectorAll("[data-option]")) {
    if (field.value !== "") options[field.dataset.option] = Number(field.value);
  }
  const body = { model: model.name, messages, options, stream: true };
  if (!$("think-row").hidden && $("think").value) body.think = $("think").value === "true";
  return body;
}

/** Draws an answer at most every FRAME_MS; `now()` draws what there is. */
function drawer(shown, text) {
  let timer = 0;
  const now = () => {
    clearTimeout(timer);
    timer = 0;
    const follow = nearEnd();
    if (text.thinking && !shown.thinking) {
      shown.thinking = element("div");
      const details = element("details", element("summary", "Thinking"), shown.thinking);
      shown.body.before(details);
    }
    if (shown.thinking) shown.thinking.replaceChildren(render(text.thinking));
    shown.body.replaceChildren(render(text.content));
    if (follow) toEnd();
  };
  const draw = () => {
    timer ||= setTimeout(now, FRAME_MS);
  };
  draw.now = now;
  return draw;
}

function conclude(shown, text, last, failed, stopped) {
  // What was said stays in the conversation, even if it was cut off: the next question follows it.
  if (text.content) state.messages.push({ role: "assistant", content: text.content });
  else state.messages.pop();
  shown.article.removeAttribute("aria-busy");
  const remarks = [];
  if (last?.done_reason === "length") remarks.push("cut off at its longest");
  if (stopped) remarks.push("stopped");
  if (last?.eval_count && last.eval_duration) {
    const rate = last.eval_count / (last.eval_duration / 1e9);
    remarks.push(`${last.eval_count} tokens, ${rate.toFixed(rate < 10 ? 1 : 0)} per second`);
  }
  if (remarks.length || text.content) {
    const foot = element("footer", element("span", remarks.join(" · ")));
    if (text.content) foot.append(copier(text.content));
    shown.article.append(foot);
  }
  if (failed) {
    const told = element("p", failed);
    told.className = "error";
    told.setAttribute("role", "alert");
    shown.article.append(told);
  }
  say(failed ? "The answer failed." : stopped ? "Stopped." : "Answered.");
  if (nearEnd()) toEnd();
}

function copier(text) {
  const button = element("button", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

function bubble(role, name) {
  $("empty")?.remove();
  const body = element("div");
  body.className = "text";
  const article = element("article", element("h2", name), body);
  article.className = role;
  article.setAttribute("aria-label", role === "user" ? "You" : `Answer of ${name}`);
  if (role === "assistant") article.setAttribute("aria-busy", "true");
  $("log").append(article);
  toEnd();
  return { article, body, thinking: null };
}

function fresh() {
  state.running?.abort();
  state.messages = [];
  $("log").replaceChildren();
  say("A new chat.");
  $("prompt").focus();
}

// -- the page --------------------------------------------------------------------------------------

function settle() {
  const running = state.running !== null;
  $("send").disabled = !state.model || running || !$("prompt").value.trim();
  $("send").hidden = running;
  $("stop").hidden = !running;
  $("model").disabled = running || !state.model;
}

function say(text) {
  $("status").textContent = text;
}

function nearEnd() {
  const log = $("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
}

function toEnd() {
  $("log").scrollTop = $("log").scrollHeight;
}

/** The message field grows with what is in it. */
function fit() {
  const field = $("prompt");
  field.rows = Math.min(Math.max(field.value.split("\n").length, 1), 8);
  settle();
}

function toggle(id, open = $(id).hidden) {
  for (const panel of ["origin", "settings"]) {
    const shown = panel === id && open;
    $(panel).hidden = !shown;
    $(`${panel}-toggle`).setAttribute("aria-expanded", String(shown));
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}

function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("prompt").addEventListener("input", fit);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => {
  state.running?.abort();
  $("prompt").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (state.running) state.running.abort();
  else toggle("", false);
});
$("model").addEventListener("change", choose);
$("fresh").addEventListener("click", fresh);
$("origin-toggle").addEventListener("click", () => toggle("origin"));
$("settings-toggle").addEventListener("click", () => toggle("settings"));
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("key").addEventListener("change", loadModels);
$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  setTheme(next);
});

setTheme("auto");
loadModels();
