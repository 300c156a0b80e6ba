// The chat's view: an ES module for anywidget, as it is, without a build step.
//
// One *state* a model: the traits, the answer under way, what was asked and not heard of yet. Every *view* is drawn
// from it once a frame, and only where it differs. Nothing that a model, a person or a file wrote is ever parsed as
// HTML: Python sends trees of nodes, `element` makes elements of an allow-list of them, everything else is text.

const TRAITS = ["transcript", "header", "state", "stop_token", "limits"];
const LATE_MS = 400; // an idle kernel says "got" well within this
const DONE_MS = 1500;
const ENDED_MS = 4000;
const NEAR_PX = 40;
const FIRST_MESSAGES = 30; // what a screen shows, and some to scroll; the rest is built when the page has time
const SLICE_MESSAGES = 6;
const MAX_DEPTH = 48;
const MAX_HEIGHT_PX = 220;
const ASK_AGAIN_MS = 2000;

const GONE = "The kernel is gone; to go on, run a cell with";
const FROZEN = "This chat is frozen; run this cell again to go on";
const CLOSED = "This chat is closed; run this cell again to go on";
const BUSY = "Wait for the answer, or stop it";
const LATE_SEND = "Will be sent when the running cell ends";
const LATE_OTHER = "Will be done when the running cell ends";
const PHASES = { loading: "Waiting for the model", waiting: "Reading the question", answering: "Answering" };
const EXPORTS = { markdown: "Markdown", jsonl: "JSON Lines", ipynb: "Notebook cells" };
const DEAD_KERNEL = new Set(["restarting", "autorestarting", "terminating", "dead"]);

// ---- the state of a model

const STATES = new WeakMap();

/** anywidget hands `initialize` and each `render` a proxy of its own; a model's layout is one object for all. */
function identity(model) {
  const layout = model.get("layout");
  return layout !== null && typeof layout === "object" ? layout : model;
}

function stateOf(model) {
  const key = identity(model);
  if (!STATES.has(key)) STATES.set(key, joined(model));
  return STATES.get(key);
}

function joined(model) {
  const state = {
    model,
    views: new Set(),
    listVersion: 0, // grows when the list of messages does, or shrinks, or one of them changes
    live: null,
    seq: null, // null: not in step with the kernel, deltas mean nothing
    isAsking: false,
    asking: 0,
    requests: new Map(),
    nextId: Math.floor(Math.random() * 2 ** 31) * 2 ** 16, // another page hears our answers too, and we its
    sending: null,
    lastSent: null, // until it is answered: the kernel gives back the text alone
    numExports: 0,
    isGone: false,
    numDrafts: model.get("state").draft ? 1 : 0,
    ends: [],
  };
  for (const name of TRAITS) {
    state[name] = model.get(name);
    listenTo(state, `change:${name}`, () => traitChanged(state, name));
  }
  listenTo(state, "msg:custom", (message) => receive(state, message));
  listenTo(state, "destroy", () => setGone(state, true));
  watchKernel(state);
  hello(state);
  return state;
}

function listenTo(state, event, act) {
  state.model.on(event, act);
  state.ends.push(() => state.model.off(event, act));
}

/** A kernel that dies says nothing to its comms; where the front end lets us see the kernel, look at it. */
function watchKernel(state) {
  const signal = state.model.widget_manager?.kernel?.statusChanged;
  if (typeof signal?.connect !== "function") return;
  const look = (_, status) => {
    if (DEAD_KERNEL.has(status)) setGone(state, true);
  };
  signal.connect(look);
  state.ends.push(() => signal.disconnect(look));
}

function leave(state) {
  for (const end of state.ends) end();
  clearTimeout(state.asking);
  setGone(state, true);
  STATES.delete(identity(state.model));
}

function setGone(state, isGone) {
  if (state.isGone && !isGone) hello(state); // what was said meanwhile is lost
  state.isGone = isGone;
  if (isGone) for (const id of [...state.requests.keys()]) got(state, { id, refused: GONE });
  redraw(state);
}

function traitChanged(state, name) {
  const before = state[name];
  state[name] = state.model.get(name);
  if (name === "state") phaseChanged(state, before, state.state);
  if (name === "transcript") {
    state.listVersion += 1;
    if (state.sending?.isGot) state.sending = null;
    if (state.live && isKept(state, state.live.id)) state.live = null;
  }
  redraw(state);
}

function phaseChanged(state, before, after) {
  // Counted here, not when drawing: the same question may fail twice between two frames.
  if (after.draft && after.draft !== before.draft) state.numDrafts += 1;
  if (before.phase === after.phase) return;
  if (after.phase !== "idle") return;
  if (!after.draft) state.lastSent = null;
  if (state.sending?.isGot) setSending(state, null);
  for (const view of state.views) say(view, endingOf(state), ENDED_MS);
}

function setSending(state, sending) {
  state.sending = sending;
  state.listVersion += 1;
}

function isKept(state, live) {
  return state.transcript.some((message) => message.live === live);
}

function isIdle(state) {
  return state.state.phase === "idle";
}

/** Why nobody can be asked any more; "" when somebody can. */
function closedBecause(state) {
  const { chat } = state.state;
  if (state.isGone) return `${GONE} ${chat ? `%load_ext nbllm and below it %llm chat ${chat}` : "nbllm.ChatWidget()"}`;
  if (state.state.frozen) return FROZEN;
  return state.state.phase === "closed" ? CLOSED : "";
}

// ---- messages to and from the kernel

/** Send a message; `late` is what to say while a running cell keeps it waiting, `refused` gets the kernel's reason. */
function request(state, message, { late = "", refused = null, taken = null } = {}) {
  const id = state.nextId++;
  const entry = { late, refused, taken, isLate: false, timer: 0 };
  if (late) entry.timer = setTimeout(() => isLate(state, entry), LATE_MS);
  state.requests.set(id, entry);
  try {
    state.model.send({ ...message, id });
  } catch {
    setGone(state, true); // a comm that is closed throws
  }
}

function isLate(state, entry) {
  entry.isLate = true;
  redraw(state);
}

function hello(state) {
  if (state.isAsking) return;
  state.isAsking = true;
  request(state, { do: "hello" }, { refused: () => (state.isAsking = false) });
  clearTimeout(state.asking); // a page that is just being loaded may lose the question, or its answer
  state.asking = setTimeout(() => askAgain(state), ASK_AGAIN_MS);
}

function askAgain(state) {
  if (!state.isAsking || state.isGone) return;
  state.isAsking = false;
  hello(state);
}

function receive(state, message) {
  const take = { got, live: setLive, delta: grow, export: download }[message?.is];
  if (!take) return;
  state.isGone = false; // somebody spoke
  take(state, message);
  redraw(state);
}

function got(state, { id, refused }) {
  const entry = state.requests.get(id);
  if (!entry) return;
  clearTimeout(entry.timer);
  state.requests.delete(id);
  if (refused) entry.refused?.(refused);
  else entry.taken?.();
}

function setLive(state, { seq, live }) {
  state.seq = seq;
  state.isAsking = false;
  state.listVersion += 1;
  state.live = live && !isKept(state, live.id) ? { ...live, blocks: [...live.blocks], tailVersion: 0 } : null;
  if (live) state.sending = null;
}

function grow(state, delta) {
  if (state.seq === null || delta.seq <= state.seq) return;
  if (delta.seq !== state.seq + 1) {
    state.seq = null; // something was lost: what is shown stays until the kernel sends the whole
    hello(state);
    return;
  }
  state.seq = delta.seq;
  if (state.live) append(state.live, delta);
}

function append(live, { reasoning = "", blocks = [], tail = null, text = "" }) {
  live.reasoning += reasoning;
  for (const block of blocks) live.blocks.push(block);
  if (tail !== null) {
    live.tail = tail;
    live.tailVersion += 1;
  }
  live.tail += text;
}

function download(state, { name, type, content }) {
  if (!state.numExports) return; // another page asked for it
  state.numExports -= 1;
  const link = make("a", "", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The stop route: it reaches the engine when a running cell keeps the comm waiting. Not everybody has it. */
function postStop(state) {
  const { base, token } = pageConfig();
  if (!state.stop_token || base === null) return;
  const headers = { "Content-Type": "application/json", "X-XSRFToken": xsrfToken() };
  if (token) headers.Authorization = `token ${token}`;
  const body = JSON.stringify({ token: state.stop_token });
  fetch(`${base}nbllm/stop`, { method: "POST", credentials: "same-origin", headers, body }).catch(() => {});
}

function pageConfig() {
  let config = {};
  try {
    config = JSON.parse(document.getElementById("jupyter-config-data")?.textContent ?? "{}");
  } catch {
    // not Jupyter's
  }
  const base = config.baseUrl ?? document.body.dataset.baseUrl ?? null;
  return { base: base === null || base.endsWith("/") ? base : `${base}/`, token: config.token };
}

function xsrfToken() {
  try {
    return /(?:^|;\s*)_xsrf=([^;]*)/.exec(document.cookie)?.[1] ?? "";
  } catch {
    return ""; // a sandboxed frame has no cookies to read
  }
}

// ---- elements

/** An element of ours; attributes that are false, null or undefined are left out. */
function make(tag, className = "", attributes = {}, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** A button that `ACTIONS[action]` serves. Pictures come from the stylesheet: what it is called is for readers. */
function button(className, label, action, text = "") {
  const attributes = { type: "button", title: label, "data-do": action };
  if (text) return make("button", className, attributes, text);
  return make("button", `${className} nbllm-icon`, { ...attributes, "aria-label": label });
}

const TAGS = new Set(
  ["p h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s a hr br span div input", "table thead tbody tr th td"]
    .join(" ")
    .split(" "),
);
const VOID = new Set(["br", "hr", "input"]);
const PARAGRAPHS = new Set("p h1 h2 h3 h4 h5 h6 li blockquote th td".split(" ")); // each in its own direction
const CLASS = /^(?:[a-z][a-z0-9]{0,3}|language-[\w+#.-]{1,40}|nbllm-code|nbllm-math)$/;
const ATTRIBUTES = {
  class: (value) => value.split(/\s+/).filter((name) => CLASS.test(name)).join(" "),
  title: (value) => value,
  href: (value, tag) => (tag === "a" ? safeHref(value) : ""),
  start: (value, tag) => (tag === "ol" && /^\d{1,9}$/.test(value) ? value : ""),
  align: (value, tag) => (/^t[hd]$/.test(tag) && /^(?:left|center|right)$/.test(value) ? value : ""),
  "data-language": (value, tag) => (tag === "pre" ? value : ""),
  "data-display": (value) => (value === "1" ? "1" : "0"),
};

/** Python has checked this already; a link is looked at again where it becomes one. */
function safeHref(value) {
  try {
    const url = new URL(value);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : "";
  } catch {
    return "";
  }
}

/** The DOM node of a node from Python. What is not on the lists becomes its text, or nothing. */
function element(node, depth = 0) {
  if (typeof node === "string") return document.createTextNode(node);
  if (!Array.isArray(node)) return document.createTextNode("");
  const [tag, attributes, ...children] = node;
  if (!TAGS.has(tag) || depth > MAX_DEPTH) return document.createTextNode(flat(node));
  const made = document.createElement(tag);
  for (const [name, check] of Object.entries(ATTRIBUTES)) {
    if (!Object.hasOwn(attributes ?? {}, name)) continue;
    const value = check(String(attributes[name]), tag);
    if (value) made.setAttribute(name, value);
  }
  if (PARAGRAPHS.has(tag)) made.dir = "auto";
  if (!VOID.has(tag)) for (const child of children) made.append(element(child, depth + 1));
  return finished(made, tag, attributes ?? {});
}

/** All text in a node; without recursion, for it is what becomes of one that is too deep. */
function flat(node) {
  const rest = [node];
  let text = "";
  while (rest.length) {
    const one = rest.pop();
    if (typeof one === "string") text += one;
    else if (Array.isArray(one)) for (let index = one.length - 1; index >= 2; index -= 1) rest.push(one[index]);
  }
  return text;
}

function finished(made, tag, attributes) {
  if (tag === "a") return link(made);
  if (tag === "input") tick(made, attributes);
  if (tag === "table") return make("div", "nbllm-scroll", { tabindex: 0, role: "group", "aria-label": "Table" }, made);
  return tag === "pre" ? codeBlock(made) : made;
}

/** A link that goes where links may go; any other is its text. */
function link(made) {
  if (!made.hasAttribute("href")) return make("span", "", {}, ...made.childNodes);
  made.setAttribute("target", "_blank");
  made.setAttribute("rel", "noopener noreferrer nofollow");
  return made;
}

function tick(input, attributes) {
  input.type = "checkbox";
  input.disabled = true;
  input.checked = Object.hasOwn(attributes, "checked") && attributes.checked !== false;
  input.setAttribute("aria-label", input.checked ? "done" : "to do");
}

function codeBlock(pre) {
  const language = pre.dataset.language ?? "";
  pre.tabIndex = 0; // what scrolls must be reachable by keyboard
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const copy = button("nbllm-copy-code", "Copy the code", "copyCode");
  const bar = make("div", "nbllm-bar", {}, make("span", "nbllm-language", {}, language), copy);
  return make("div", "nbllm-block", {}, bar, pre);
}

function equal(one, other) {
  if (one === other) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => equal(one[name], other[name]));
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Let a text node say `text`, which mostly is what it says already and some more. */
function growText(node, text, isSame) {
  if (!isSame) node.data = text;
  else if (text.length > node.length) node.appendData(text.slice(node.length));
}

function fileSize(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

// ---- a view: its parts

function viewOf(state, model, el) {
  const view = {
    state,
    model,
    el,
    id: `nbllm-${Math.random().toString(36).slice(2)}`, // each model loads the module anew: a counter would start again
    end: new AbortController(),
    frame: 0,
    idle: 0,
    shown: {}, // what is drawn
    messages: new Map(),
    limit: Infinity,
    maths: [],
    isPinned: true,
    lastTop: 0,
    height: 0,
    files: [],
    notices: [],
    said: "",
    saying: 0,
    numDrafts: 0,
    recall: null,
    fields: new Map(),
  };
  buildParts(view);
  listen(view);
  el.append(view.root);
  return view;
}

function buildParts(view) {
  view.feed = make("div", "nbllm-feed", { role: "log", tabindex: 0, "aria-label": "Conversation", "aria-live": "off" });
  view.empty = make("p", "nbllm-empty", {}, "Ask a question. Enter sends it, Shift+Enter begins a new line.");
  view.feed.append(view.empty);
  view.phase = make("span");
  view.detail = make("span", "nbllm-detail", { "aria-live": "off" }); // figures that run are not for reading out
  view.status = make("div", "nbllm-status", { role: "status", "aria-live": "polite" }, view.phase, view.detail);
  view.error = make("div", "nbllm-error", { role: "alert" });
  view.latest = button("nbllm-latest", "Jump to the newest", "latest");
  view.root = make("section", "nbllm-chat", {
    "aria-label": "Chat",
    // Lumino looks for its shortcuts on the way down, before an event could be stopped; both marks are documented.
    "data-lm-suppress-shortcuts": "true",
    "data-jp-suppress-context-menu": "true",
  });
  const parts = [buildHead(view), buildSettings(view), view.feed, view.status, view.error, view.latest];
  view.root.append(...parts, buildComposer(view));
}

function buildHead(view) {
  view.models = make("select", "nbllm-model", { "aria-label": "Model", title: "Model", "data-change": "model" });
  view.conversations = make("select", "nbllm-conversation", {
    "aria-label": "Conversation",
    title: "Conversation",
    "data-change": "open",
  });
  view.settingsButton = button("nbllm-settings-button", "Settings", "settings");
  view.settingsButton.setAttribute("aria-expanded", "false");
  view.settingsButton.setAttribute("aria-controls", `${view.id}-settings`);
  view.context = make("div", "nbllm-context", { role: "meter", "aria-label": "Context used", "aria-valuemin": 0 });
  return make(
    "div",
    "nbllm-head",
    {},
    view.models,
    view.conversations,
    button("nbllm-new", "New conversation", "new"),
    (view.renameButton = button("nbllm-rename", "Rename the conversation", "rename")),
    buildRename(view),
    view.settingsButton,
    buildExport(view),
    button("nbllm-freeze", "Freeze: replace the chat by its text", "freeze"),
    view.context,
  );
}

function buildRename(view) {
  const id = `${view.id}-reason`;
  view.newName = make("input", "", {
    type: "text",
    "aria-label": "New name of the conversation",
    "aria-describedby": id,
    autocomplete: "off",
  });
  const save = make("button", "nbllm-save", { type: "submit" }, "Rename");
  const cancel = button("nbllm-cancel", "Cancel", "cancelRename", "Cancel");
  view.reason = make("span", "nbllm-reason", { id, role: "alert" });
  const parts = [view.newName, save, cancel, view.reason];
  view.rename = make("form", "nbllm-rename-form nbllm-editing", { hidden: true }, ...parts);
  return view.rename;
}

function buildExport(view) {
  view.exportButton = button("nbllm-export", "Export", "menu");
  view.exportButton.setAttribute("aria-haspopup", "menu");
  view.exportButton.setAttribute("aria-expanded", "false");
  view.menu = make("div", "nbllm-menu", { role: "menu", "aria-label": "Export as", hidden: true });
  for (const [format, label] of Object.entries(EXPORTS)) {
    const item = button("nbllm-menu-item", `Export as ${label}`, "export", label);
    item.setAttribute("role", "menuitem");
    item.dataset.format = format;
    view.menu.append(item);
  }
  return make("div", "nbllm-menu-holder", {}, view.exportButton, view.menu);
}

function buildSettings(view) {
  view.settings = make("form", "nbllm-settings", {
    id: `${view.id}-settings`,
    "aria-label": "Settings",
    novalidate: true, // the kernel knows the ranges, and says what to type instead
    hidden: true,
  });
  return view.settings;
}

function buildComposer(view) {
  view.chips = make("div", "nbllm-chips", { role: "list", "aria-label": "Files to send", hidden: true });
  view.text = make("textarea", "", { rows: 1, "aria-label": "Your message" });
  view.picker = make("input", "", { type: "file", multiple: true, hidden: true, tabindex: -1, "aria-hidden": "true" });
  view.attach = button("nbllm-attach", "Attach text files", "attach");
  view.send = make("button", "nbllm-send nbllm-icon", { type: "submit", "aria-label": "Send", title: "Send" });
  view.stop = button("nbllm-stop", "Stop the answer", "stop");
  view.interrupt = button("nbllm-interrupt", "Interrupt the running cell", "interrupt", "Interrupt the running cell");
  const parts = [view.chips, view.text, view.picker, view.attach, view.send, view.stop, view.interrupt];
  view.composer = make("form", "nbllm-composer", { "aria-label": "Message" }, ...parts);
  return view.composer;
}

// ---- drawing: once a frame, what differs

function redraw(state) {
  for (const view of state.views) schedule(view);
}

function schedule(view) {
  if (!view.frame && !view.end.signal.aborted) view.frame = requestAnimationFrame(() => draw(view));
}

function draw(view) {
  view.frame = 0;
  drawHead(view);
  drawFeed(view);
  drawStatus(view);
  drawErrors(view);
  drawComposer(view);
}

/** Whether a value differs from the one drawn last under this name, which it becomes. */
function differs(view, name, value) {
  if (Object.is(view.shown[name], value)) return false;
  view.shown[name] = value;
  return true;
}

function drawHead(view) {
  const { header } = view.state;
  if (!header || !differs(view, "header", header)) return;
  drawSelect(view.models, modelOptions(header), header.model);
  drawSelect(view.conversations, [["", header.conversations.map((name) => [name, name])]], header.conversation);
  view.text.placeholder = header.model ? `Ask ${header.model}` : "Ask a question";
  drawContext(view.context, header.context);
  drawSettings(view, header.settings ?? []);
}

/** The groups of the model picker; the model that answers is always among the models. */
function modelOptions({ models }) {
  const option = ({ name, note, loaded }) => [name, note && !loaded ? `${name} · ${note}` : name];
  const groups = [
    ["Loaded", models.filter(({ loaded }) => loaded).map(option)],
    ["Available", models.filter(({ loaded }) => !loaded).map(option)],
  ];
  return groups.filter(([, options]) => options.length);
}

/** Fill a select with groups of [value, text]; an open list is not touched when they are the same. */
function drawSelect(select, groups, value) {
  const key = JSON.stringify(groups);
  if (select.nbllmKey !== key) {
    select.nbllmKey = key;
    select.replaceChildren(...groups.flatMap(([label, options]) => optionNodes(label, options)));
  }
  select.value = value;
}

function optionNodes(label, options) {
  const nodes = options.map(([value, text]) => make("option", "", { value }, text));
  return label ? [make("optgroup", "", { label }, ...nodes)] : nodes;
}

function drawContext(meter, context) {
  meter.hidden = !context?.length;
  if (meter.hidden) return;
  const { used, length } = context;
  const share = Math.min(1, used / length);
  const words = `${used.toLocaleString("en")} of ${length.toLocaleString("en")} tokens of context used`;
  meter.setAttribute("aria-valuemax", length);
  meter.setAttribute("aria-valuenow", Math.min(used, length));
  meter.setAttribute("aria-valuetext", words);
  meter.title = words;
  meter.style.setProperty("--used", `${(share * 100).toFixed(1)}%`);
  meter.classList.toggle("nbllm-full", share > 0.9);
}

function drawStatus(view) {
  const { state } = view;
  const late = [...state.requests.values()].find((entry) => entry.isLate);
  const closed = closedBecause(state);
  const { phase, detail } = state.state;
  setText(view.phase, closed || late?.late || PHASES[phase] || view.said);
  setText(view.detail, !closed && !late && PHASES[phase] && detail ? ` ${detail}` : "");
  view.root.dataset.phase = phase;
  view.root.toggleAttribute("data-gone", closed !== "");
  view.interrupt.hidden = !late || closed !== "" || typeof state.model.widget_manager?.kernel?.interrupt !== "function";
}

/** Say that something is done, for a moment. */
function say(view, text, ms = DONE_MS) {
  view.said = text;
  schedule(view);
  clearTimeout(view.saying);
  view.saying = text ? setTimeout(() => say(view, ""), ms) : 0;
}

function endingOf(state) {
  if (state.state.error) return "";
  if (state.state.draft) return "Stopped"; // before a word of it: the question is back
  return state.transcript.at(-1)?.ending === "interrupted" ? "Stopped" : "Answer complete";
}

/** What the kernel says went wrong, then what this view refused; each can be put away. */
function drawErrors(view) {
  const { error } = view.state.state;
  if (error !== view.dismissed) view.dismissed = "";
  const lines = [...(error && !view.dismissed ? [error] : []), ...view.notices];
  if (!differs(view, "errors", JSON.stringify(lines))) return;
  view.error.replaceChildren(
    ...lines.map((line, index) => {
      const close = button("nbllm-close", "Dismiss", "dismiss");
      close.dataset.index = index;
      return make("div", "nbllm-notice", {}, make("span", "", {}, line), close);
    }),
  );
  if (view.notices.length) view.error.scrollIntoView({ block: "nearest" }); // what was just tried did not work, and why
}

function dismiss(view, { dataset }) {
  const hasError = view.state.state.error !== "" && !view.dismissed;
  const index = Number(dataset.index) - (hasError ? 1 : 0);
  if (index < 0) view.dismissed = view.state.state.error;
  else view.notices.splice(index, 1);
  focusText(view);
  schedule(view);
}

function complain(view, reason) {
  if (!view.notices.includes(reason)) view.notices.push(reason);
  schedule(view);
}

// ---- drawing the feed

/** The messages to show, oldest first: what is kept, then what is under way. */
function entries(state) {
  const { live, sending } = state;
  if (!live) return sending ? [...state.transcript, sending.message] : state.transcript;
  const list = visible(state.transcript, live.after);
  if (live.question) list.push(live.question);
  return [...list, { id: `live:${live.id}`, role: "assistant", turn: "", model: state.header?.model, isLive: true }];
}

/** The messages up to a turn, which the answer under way follows; 0 is the beginning. */
function visible(transcript, after) {
  if (after === 0) return [];
  const last = after === null ? -1 : transcript.findLastIndex((message) => message.turn === after);
  return last < 0 ? [...transcript] : transcript.slice(0, last + 1);
}

function drawFeed(view) {
  const { state } = view;
  if (differs(view, "list", state.listVersion)) {
    const list = entries(state);
    adopt(view, list);
    const isMany = list.slice(-view.limit).filter((message) => !isDrawn(view, message)).length > FIRST_MESSAGES;
    if (isMany) view.limit = FIRST_MESSAGES;
    quiet(view, isMany || !isIdle(state));
    reconcile(view, list);
  }
  if (state.live) drawLive(view, view.messages.get(`live:${state.live.id}`), state.live);
  if (view.isPinned) toBottom(view);
  view.latest.hidden = view.isPinned;
}

/** Answers are not read out while they grow, and not the whole of a conversation that is opened. */
function quiet(view, isQuiet) {
  view.feed.setAttribute("aria-live", isQuiet ? "off" : "polite");
}

/** Whether a message is shown as it is now. One that is takes the place of its equal: it is not compared again. */
function isDrawn(view, message) {
  const item = view.messages.get(message.id);
  if (item === undefined || !equal(item.message, message)) return false;
  item.message = message;
  return true;
}

/** An answer that ended keeps the elements it was streamed into: no flicker, and what is selected stays selected. */
function adopt(view, list) {
  for (const { id, live } of list) {
    const item = live ? view.messages.get(`live:${live}`) : undefined;
    if (item === undefined || view.messages.has(id)) continue;
    view.messages.delete(`live:${live}`);
    view.messages.set(id, item);
  }
}

function reconcile(view, list) {
  const shown = list.slice(-view.limit);
  if (shown.length === list.length) view.limit = Infinity;
  else whenIdle(view);
  const ids = new Set(shown.map(({ id }) => id));
  for (const [id, { node }] of view.messages) {
    if (ids.has(id)) continue;
    node.remove();
    view.messages.delete(id);
  }
  view.empty.hidden = list.length > 0;
  let place = view.empty.nextSibling;
  for (const message of shown) {
    const { node } = drawn(view, message);
    if (node === place) place = place.nextSibling;
    else view.feed.insertBefore(node, place);
  }
}

function drawn(view, message) {
  if (!view.messages.has(message.id)) view.messages.set(message.id, buildMessage(message.role === "user"));
  const item = view.messages.get(message.id);
  if (!isDrawn(view, message)) update(view, item, message);
  return item;
}

function buildMessage(isUser) {
  const item = {
    message: null,
    heading: make("h3", "nbllm-hidden"),
    thoughts: document.createTextNode(""),
    summary: make("summary"),
    body: make("div", "nbllm-body", { dir: "auto" }),
    tailText: document.createTextNode(""),
    foot: make("div", "nbllm-foot"),
    actions: make("div", "nbllm-actions"),
    numBlocks: 0,
    live: null,
    tailVersion: 0,
    form: null,
  };
  const parts = isUser ? askedParts(item) : answeredParts(item);
  item.node = make("article", "nbllm-message", {}, item.heading, ...parts, item.actions);
  return item;
}

function askedParts(item) {
  item.chips = make("ul", "nbllm-chips", { "aria-label": "Files" });
  return [item.body, item.chips];
}

function answeredParts(item) {
  const thoughts = make("div", "", { dir: "auto" }, item.thoughts);
  item.reasoning = make("details", "nbllm-reasoning", {}, item.summary, thoughts);
  item.tail = make("div", "nbllm-tail", { dir: "auto" }, item.tailText);
  return [item.reasoning, item.body, item.tail, item.foot];
}

function update(view, item, message) {
  const before = item.message;
  item.message = message;
  const isUser = message.role === "user";
  item.node.dataset.role = message.role;
  item.node.dataset.turn = message.turn ?? "";
  item.node.dataset.id = message.id;
  item.node.classList.toggle("nbllm-live", message.isLive ?? false);
  item.node.classList.toggle("nbllm-settled", !message.isLive);
  item.node.classList.toggle("nbllm-pending", message.isPending ?? false);
  setText(item.heading, isUser ? "You said" : `${message.model || "The model"} answered`);
  if (isUser) updateQuestion(item, message, before);
  else updateAnswer(view, item, message, before);
  setText(item.foot, message.footer ?? "");
  item.actions.replaceChildren(...(message.isLive || message.isPending ? [] : actionsOf(message)));
}

function updateQuestion(item, { text, attachments }, before) {
  if (before?.text !== text) endEdit(item);
  item.body.textContent = text;
  item.chips.hidden = !attachments?.length;
  item.chips.replaceChildren(...(attachments ?? []).map((file) => make("li", "nbllm-chip", {}, chipText(file))));
}

function chipText({ name, size }) {
  return size === undefined ? name : `${name} · ${fileSize(size)}`; // a file that was sent is known by its name alone
}

function updateAnswer(view, item, message, before) {
  if (message.isLive) return;
  item.live = null;
  item.tail.hidden = true;
  item.tailText.data = "";
  if (!before?.isLive) clearBody(item); // what was streamed is the beginning of it
  addBlocks(view, item, message.blocks);
  drawReasoning(item, message.reasoning, "Reasoning", false);
}

function clearBody(item) {
  item.body.replaceChildren();
  item.numBlocks = 0;
}

/** Build the blocks that are not there yet; one that is closed never changes. */
function addBlocks(view, item, blocks) {
  for (; item.numBlocks < blocks.length; item.numBlocks += 1) {
    const block = element(blocks[item.numBlocks]);
    item.body.append(block);
    if (block.nodeType === Node.ELEMENT_NODE) findMaths(view, block);
  }
}

function drawLive(view, item, live) {
  const isSame = item.live === live;
  if (!isSame) {
    clearBody(item); // the whole came again
    item.tail.hidden = false;
    item.live = live;
  }
  addBlocks(view, item, live.blocks);
  growText(item.tailText, live.tail, isSame && item.tailVersion === live.tailVersion);
  item.tailVersion = live.tailVersion;
  drawReasoning(item, live.reasoning, live.tail || live.blocks.length ? "Reasoning" : "Thinking…", isSame);
}

function drawReasoning(item, text, summary, isSame) {
  item.reasoning.hidden = !text;
  setText(item.summary, summary);
  growText(item.thoughts, text ?? "", isSame);
}

function actionsOf(message) {
  const isUser = message.role === "user";
  const actions = [button("nbllm-copy", isUser ? "Copy the question" : "Copy the answer", "copy")];
  if (isUser) actions.push(button("nbllm-edit", "Edit the question", "edit"));
  else actions.push(button("nbllm-regenerate", "Answer again", "regenerate"));
  const { index, turns } = message.branches ?? { index: 0, turns: [] };
  if (turns.length < 2) return actions;
  const previous = branchButton("nbllm-branch-prev", "Previous version", turns[index - 1]);
  const next = branchButton("nbllm-branch-next", "Next version", turns[index + 1]);
  const named = { role: "img", "aria-label": `Version ${index + 1} of ${turns.length}` };
  return [...actions, previous, make("span", "nbllm-branch", named, `${index + 1}/${turns.length}`), next];
}

function branchButton(className, label, turn) {
  const made = button(className, label, "branch");
  made.disabled = turn === undefined;
  made.dataset.turn = turn ?? "";
  return made;
}

// ---- what can wait: older messages, maths

function whenIdle(view) {
  if (view.idle) return;
  const run = (deadline) => {
    view.idle = 0;
    if (!view.end.signal.aborted) idle(view, deadline);
  };
  // Safari has no idle callbacks.
  const later = () => run({ timeRemaining: () => 10 });
  view.idle = window.requestIdleCallback ? requestIdleCallback(run, { timeout: 200 }) : setTimeout(later, 16);
}

function idle(view, deadline) {
  const start = performance.now();
  const hasTime = () => deadline.timeRemaining() > 3 && performance.now() - start < 15;
  if (view.limit !== Infinity) keepingPlace(view, () => fill(view, hasTime));
  while (view.maths.length && hasTime()) typeset(view, view.maths.shift());
  if (view.isPinned) toBottom(view);
  if (view.maths.length || view.limit !== Infinity) whenIdle(view);
}

function fill(view, hasTime) {
  const list = entries(view.state);
  do {
    view.limit += SLICE_MESSAGES;
    reconcile(view, list);
  } while (view.limit !== Infinity && hasTime());
}

/** Change what is above the reader without moving what they read, whether or not the browser does that itself. */
function keepingPlace(view, change) {
  const top = view.feed.getBoundingClientRect().top;
  const isSeen = (node) => node.getBoundingClientRect().bottom > top;
  const anchor = view.isPinned ? undefined : [...view.feed.children].find(isSeen);
  const before = anchor?.getBoundingClientRect().top;
  change();
  if (anchor?.isConnected) view.feed.scrollTop += anchor.getBoundingClientRect().top - before;
}

function typesetterOf({ widget_manager: manager }) {
  const typesetter = (manager?.rendermime ?? manager?._rendermime)?.latexTypesetter;
  return typeof typesetter?.typeset === "function" ? typesetter : null;
}

function findMaths(view, block) {
  const found = block.matches(".nbllm-math") ? [block] : [...block.querySelectorAll(".nbllm-math")];
  if (!found.length) return;
  if (typesetterOf(view.model) === null) {
    for (const span of found) span.classList.add("nbllm-source");
    return;
  }
  for (const span of found) view.maths.push(span);
  whenIdle(view);
}

async function typeset(view, span) {
  try {
    await typesetterOf(view.model)?.typeset(span);
  } catch {
    span.classList.add("nbllm-source");
  }
  if (view.isPinned) toBottom(view);
}

// ---- scrolling

/** At once, not with the next frame: an anchoring scroll of the browser would come first and look like the reader's. */
function pin(view) {
  view.isPinned = true;
  toBottom(view);
}

function toBottom(view) {
  const { feed, lastTop } = view;
  feed.scrollTop = feed.scrollHeight;
  view.lastTop = feed.scrollTop;
  if (view.lastTop !== lastTop) schedule(view); // what comes into sight gets its real height only then
}

/** Only a reader who scrolls up leaves the bottom: text that grows does not, however fast. */
function onScroll(view) {
  const { feed } = view;
  if (!view.height) return; // being taken out of the page, or put back
  const isNear = feed.scrollHeight - feed.scrollTop - feed.clientHeight < NEAR_PX;
  if (isNear) view.isPinned = true;
  else if (feed.scrollTop < view.lastTop - 1) view.isPinned = false;
  view.lastTop = feed.scrollTop;
  view.latest.hidden = view.isPinned;
}

/** A notebook takes cells out of the page that are far away; they come back scrolled to the top. */
function onResize(view) {
  const wasHidden = view.height === 0;
  view.height = view.feed.clientHeight;
  if (!view.height) return;
  if (view.isPinned) view.lastTop = -1; // the bottom is looked for again, until it stays where it is
  else if (wasHidden) view.feed.scrollTop = view.lastTop;
  if (wasHidden) fitText(view.text);
  schedule(view);
}

function jumpToLatest(view) {
  pin(view); // no gliding: over a hundred messages it would build them all
  view.latest.hidden = true;
  focusText(view);
}

// ---- the settings

function drawSettings(view, settings) {
  const shape = settings.map((setting) => ({ ...setting, value: null }));
  if (!equal(shape, view.shown.shape)) {
    view.shown.shape = shape;
    buildFields(view, settings);
  }
  for (const setting of settings) {
    const field = view.fields.get(setting.name);
    if (field.isChanged && !equal(field.setting.value, setting.value)) field.isChanged = false;
    field.setting = setting;
    if (!field.isChanged) field.input.value = asText(setting.kind, setting.value);
  }
}

function buildFields(view, settings) {
  view.fields.clear();
  // A fieldset does not become a grid's part in every browser; `display: contents` leaves the layout to the form.
  const group = make("fieldset", "nbllm-fields", {}, make("legend", "nbllm-hidden", {}, "How the model answers"));
  for (const setting of settings) group.append(buildField(view, setting));
  const apply = make("button", "nbllm-apply", { type: "submit" }, "Apply");
  const reset = button("nbllm-reset", "Use the defaults for all of these", "resetSettings", "Defaults");
  const close = button("nbllm-done-settings", "Close the settings", "closeSettings", "Close");
  view.settings.replaceChildren(group, make("div", "nbllm-settings-foot", {}, apply, reset, close));
}

function buildField(view, setting) {
  const id = `${view.id}-${setting.name}`;
  const isLong = setting.kind === "lines" || setting.name === "system";
  const number = { type: "number", min: setting.min, max: setting.max, step: setting.step ?? "any" };
  const isNumber = setting.kind === "number" || setting.kind === "integer";
  const input = make(isLong ? "textarea" : "input", "", {
    id,
    name: setting.name,
    placeholder: asText(setting.kind, setting.default) || "default",
    "aria-describedby": setting.help ? `${id}-help` : null,
    autocomplete: "off",
    ...(isNumber ? number : isLong ? { rows: 2 } : { type: "text" }),
  });
  const field = { setting, input, isChanged: false };
  input.addEventListener("input", () => (field.isChanged = true));
  view.fields.set(setting.name, field);
  const help = setting.help ? [make("span", "nbllm-help", { id: `${id}-help` }, setting.help)] : [];
  return make("div", "nbllm-field", {}, make("label", "", { for: id }, setting.label), input, ...help);
}

function asText(kind, value) {
  if (value === null || value === undefined) return "";
  return kind === "lines" ? [value].flat().join("\n") : String(value);
}

function valueOf({ setting: { kind }, input }) {
  const text = input.value;
  if (text.trim() === "") return null;
  if (kind === "lines") return text.split("\n").filter((line) => line !== "");
  return kind === "text" ? text : Number(text);
}

/** Send what was changed; false when something cannot be sent. */
function applySettings(view) {
  const changed = [...view.fields.values()].filter((field) => field.isChanged);
  const bad = changed.find(({ input }) => input.validity.badInput);
  if (bad) {
    complain(view, `${bad.setting.label}: type a number, or nothing for the default`);
    bad.input.focus();
    return false;
  }
  const values = Object.fromEntries(changed.map((field) => [field.setting.name, valueOf(field)]));
  if (changed.length) sendSettings(view, values);
  return true;
}

function sendSettings(view, values) {
  for (const field of view.fields.values()) field.isChanged = false;
  tell(view, { do: "settings", values }, {
    refused: () => keepTyped(view, values),
    taken: () => say(view, "Settings applied"),
  });
}

/** After a refusal, what was typed stays to be corrected. */
function keepTyped(view, values) {
  for (const name of Object.keys(values)) if (view.fields.has(name)) view.fields.get(name).isChanged = true;
}

function resetSettings(view) {
  for (const { input } of view.fields.values()) input.value = "";
  sendSettings(view, Object.fromEntries([...view.fields.keys()].map((name) => [name, null])));
}

function toggleSettings(view, isOpen = view.settings.hidden) {
  view.settings.hidden = !isOpen;
  view.settingsButton.setAttribute("aria-expanded", String(isOpen));
  if (isOpen) view.fields.values().next().value?.input.focus();
  else closeSettings(view);
}

function closeSettings(view) {
  for (const field of view.fields.values()) {
    field.isChanged = false;
    field.input.value = asText(field.setting.kind, field.setting.value);
  }
  view.settingsButton.focus();
}

// ---- head: rename, export

function openRename(view) {
  view.newName.value = view.state.header.conversation;
  sayWhyNot(view, "");
  view.rename.hidden = false;
  view.newName.select();
  view.newName.focus();
}

function closeRename(view) {
  const { activeElement } = document;
  view.rename.hidden = true;
  if (activeElement === document.body || view.rename.contains(activeElement)) view.renameButton.focus();
}

/** The form stays until the name is taken: one that is refused is there to be corrected. */
function rename(view) {
  const name = view.newName.value.trim();
  if (!name || name === view.state.header.conversation) return closeRename(view);
  sayWhyNot(view, "");
  const isThere = () => !view.rename.hidden && view.newName.value.trim() === name;
  request(view.state, { do: "rename", name }, {
    late: LATE_OTHER,
    refused: (reason) => {
      if (isThere() && reason !== GONE) sayWhyNot(view, reason);
      else if (reason !== GONE) complain(view, reason);
    },
    taken: () => isThere() && closeRename(view),
  });
}

/** Why the name that was typed is not taken; "" when nothing speaks against it. */
function sayWhyNot(view, reason) {
  setText(view.reason, reason);
  view.newName.setAttribute("aria-invalid", String(reason !== ""));
  if (reason && view.rename.contains(document.activeElement)) view.newName.focus();
}

function toggleMenu(view, isOpen = view.menu.hidden, isFocused = true) {
  view.menu.hidden = !isOpen;
  view.exportButton.setAttribute("aria-expanded", String(isOpen));
  if (isFocused) (isOpen ? view.menu.firstElementChild : view.exportButton).focus();
}

function stepInMenu(view, key, current) {
  const items = [...view.menu.children];
  const index = items.indexOf(current);
  const next = { ArrowDown: (index + 1) % items.length, ArrowUp: index - 1, Home: 0, End: -1 }[key];
  items.at(next ?? index).focus();
  return next !== undefined;
}

function exportAs(view, { dataset }) {
  const { state } = view;
  state.numExports += 1;
  tell(view, { do: "export", format: dataset.format }, { refused: () => (state.numExports -= 1) });
  toggleMenu(view, false);
}

/** A request whose refusal is shown in this view. */
function tell(view, message, { late = LATE_OTHER, refused = null, taken = null } = {}) {
  const told = (reason) => {
    refused?.(reason);
    view.shown.header = null; // a select shows again what is the case
    if (reason !== GONE) complain(view, reason);
  };
  request(view.state, message, { late, refused: told, taken });
}

// ---- the composer

function drawComposer(view) {
  const { state } = view;
  const isClosed = closedBecause(state) !== "";
  const isBusy = !isIdle(state) && !isClosed;
  for (const part of [view.text, view.attach]) part.disabled = isClosed;
  view.stop.hidden = !isBusy;
  view.send.hidden = isBusy;
  view.send.disabled = isClosed || state.sending !== null || (!view.text.value.trim() && !view.files.length);
  putDraftBack(view);
}

function putDraftBack(view) {
  const { numDrafts, state } = view.state;
  if (view.numDrafts === numDrafts) return;
  view.numDrafts = numDrafts;
  if (!state.draft || view.text.value || (view.state.lastSent && view.state.lastSent.view !== view)) return;
  setMessage(view, state.draft);
  const { lastSent } = view.state;
  if (lastSent?.text.trim() !== state.draft.trim() || view.files.length) return;
  view.files = [...lastSent.files];
  drawChips(view);
}

function setMessage(view, text) {
  view.text.value = text;
  view.text.setSelectionRange(text.length, text.length);
  typed(view);
}

function typed(view) {
  fitText(view.text);
  schedule(view);
}

function fitText(text) {
  text.style.height = "auto";
  if (text.scrollHeight) text.style.height = `${Math.min(text.scrollHeight + 2, MAX_HEIGHT_PX)}px`;
}

function focusText(view) {
  view.text.focus({ preventScroll: true });
}

function send(view) {
  const { state, files } = view;
  const text = view.text.value;
  if (closedBecause(state) || state.sending || (!text.trim() && !files.length)) return;
  if (!isIdle(state)) return complain(view, BUSY);
  if (!applySettings(view)) return;
  view.notices = [];
  view.files = [];
  view.recall = null;
  pin(view);
  state.lastSent = { text, files, view };
  const message = { id: "sending", role: "user", turn: "", text, attachments: files, isPending: true };
  setSending(state, { message, isGot: false });
  setMessage(view, "");
  drawChips(view);
  const attachments = files.map(({ name, type, text: content }) => ({ name, type, text: content }));
  tell(view, { do: "send", text, attachments }, {
    late: LATE_SEND,
    refused: () => takeBack(view, text, files),
    taken: () => state.sending && (state.sending.isGot = true),
  });
  focusText(view);
}

/** A question that was refused goes back to where it was typed, before what has been typed since. */
function takeBack(view, text, files) {
  setSending(view.state, null);
  const since = view.text.value;
  setMessage(view, since ? `${text}\n\n${since}` : text);
  view.files = [...files, ...view.files];
  drawChips(view);
}

function stop(view) {
  if (isIdle(view.state)) return;
  request(view.state, { do: "stop" });
  postStop(view.state);
  focusText(view);
}

async function interrupt(view) {
  focusText(view);
  try {
    await view.state.model.widget_manager.kernel.interrupt();
  } catch (error) {
    complain(view, `The cell was not interrupted: ${error.message}`);
  }
}

/** Walk through earlier questions, from the beginning of the text or from one of them; one's own waits at the end. */
function recall(view, step) {
  const { value, selectionStart, selectionEnd } = view.text;
  const isWalking = view.recall?.text === value;
  if (!isWalking && (step > 0 || selectionStart || selectionEnd)) return false;
  const now = isWalking ? view.recall : { index: Infinity, own: value };
  const asked = view.state.transcript.filter(({ role }) => role === "user").map(({ text }) => text);
  const list = [...asked.filter((text, index) => text !== asked[index + 1]), now.own];
  const index = Math.min(now.index, list.length - 1) + step;
  if (index < 0 || index >= list.length) return true;
  view.recall = { index, text: list[index], own: now.own };
  setMessage(view, list[index]);
  return true;
}

// ---- files

async function attach(view, files) {
  if (closedBecause(view.state)) return;
  for (const file of files) {
    try {
      const added = await readFile(view, file);
      checkNumber(view); // others may have been added meanwhile
      view.files.push(added);
    } catch (error) {
      complain(view, error.message);
    }
  }
  drawChips(view);
  focusText(view);
}

async function readFile(view, file) {
  const { attachment_bytes: most, images } = view.state.limits;
  if (file.type.startsWith("image/") && file.type !== "image/svg+xml") throw Error(`${file.name}: ${images}`);
  if (file.size > most) throw Error(`${file.name} has ${fileSize(file.size)}; up to ${fileSize(most)} can be sent`);
  checkNumber(view);
  return { name: file.name, type: file.type, size: file.size, text: decoded(file.name, await file.arrayBuffer()) };
}

function checkNumber(view) {
  const most = view.state.limits.attachments;
  if (view.files.length >= most) throw Error(`Up to ${most} files can be sent with one message; remove one first`);
}

function decoded(name, bytes) {
  let text = "\0";
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    // not UTF-8: as bad as a file with zeros in it
  }
  if (text.includes("\0")) throw Error(`${name} is not a text file in UTF-8`);
  return text;
}

function drawChips(view) {
  view.chips.hidden = view.files.length === 0;
  view.chips.replaceChildren(
    ...view.files.map((file, index) => {
      const remove = button("nbllm-remove", `Remove ${file.name}`, "removeFile");
      remove.dataset.index = index;
      return make("span", "nbllm-chip", { role: "listitem" }, chipText(file), remove);
    }),
  );
  schedule(view);
}

function removeFile(view, { dataset }) {
  view.files.splice(Number(dataset.index), 1);
  drawChips(view);
  focusText(view);
}

// ---- a message's actions

function itemOf(view, node) {
  return view.messages.get(node.closest(".nbllm-message")?.dataset.id);
}

/** Do what only one at a time can do; false while an answer is under way. */
function whenFree(view, message, refused = null) {
  if (closedBecause(view.state)) return false;
  if (!isIdle(view.state)) {
    complain(view, BUSY);
    return false;
  }
  if (!applySettings(view)) return false;
  view.notices = [];
  tell(view, message, { late: message.do === "branch" ? LATE_OTHER : LATE_SEND, refused });
  return true;
}

function regenerate(view, node) {
  if (!whenFree(view, { do: "regenerate", turn: itemOf(view, node).message.turn })) return;
  pin(view);
  focusText(view);
}

function openEdit(item, value) {
  if (item.form) return;
  const text = make("textarea", "", { rows: 1, "aria-label": "Your question" });
  text.value = value;
  const save = make("button", "nbllm-save", { type: "submit" }, "Save & send");
  const cancel = button("nbllm-cancel", "Cancel", "cancelEdit", "Cancel");
  item.form = make("form", "nbllm-edit-form", {}, text, make("div", "nbllm-settings-foot", {}, save, cancel));
  item.node.classList.add("nbllm-editing");
  item.body.hidden = item.actions.hidden = true;
  item.body.after(item.form);
  text.addEventListener("input", () => fitText(text));
  fitText(text);
  text.focus();
}

function endEdit(item) {
  item.form?.remove();
  item.form = null;
  item.node.classList.remove("nbllm-editing");
  item.body.hidden = item.actions.hidden = false;
}

function saveEdit(view, form) {
  const item = itemOf(view, form);
  const text = form.querySelector("textarea").value;
  if (!text.trim()) return;
  const reopen = () => openEdit(item, text);
  if (!whenFree(view, { do: "edit", turn: item.message.turn, text }, reopen)) return;
  endEdit(item);
  pin(view);
  focusText(view);
}

function cancelEdit(view, node) {
  const item = itemOf(view, node);
  endEdit(item);
  item.actions.querySelector(".nbllm-edit")?.focus();
}

async function copyText(view, from, text) {
  const isDone = (await toClipboard(text)) || (await oldWay(view, text));
  if (!isDone) return complain(view, "The page may not write to the clipboard; select the text and copy it");
  say(view, "Copied");
  from.classList.add("nbllm-done");
  setTimeout(() => from.classList.remove("nbllm-done"), DONE_MS);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no secure context, or no permission
  }
}

function oldWay(view, text) {
  const before = document.activeElement;
  const area = make("textarea", "nbllm-hidden", { "aria-hidden": "true", tabindex: -1 });
  area.value = text;
  view.root.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  before?.focus?.({ preventScroll: true });
  return isDone;
}

// ---- what people do

const ACTIONS = {
  new: (view) => tell(view, { do: "new" }),
  rename: openRename,
  cancelRename: closeRename,
  settings: (view) => toggleSettings(view),
  closeSettings: (view) => toggleSettings(view, false),
  resetSettings,
  menu: (view) => toggleMenu(view),
  export: exportAs,
  freeze: (view) => tell(view, { do: "freeze" }),
  latest: jumpToLatest,
  dismiss,
  attach: (view) => view.picker.click(),
  removeFile,
  stop,
  interrupt,
  copy: (view, node) => copyText(view, node, itemOf(view, node).message.text),
  copyCode: (view, node) => copyText(view, node, node.closest(".nbllm-block").querySelector("pre").textContent),
  edit: (view, node) => openEdit(itemOf(view, node), itemOf(view, node).message.text),
  cancelEdit,
  regenerate,
  branch: (view, { dataset }) => whenFree(view, { do: "branch", turn: Number(dataset.turn) }),
};

// The notebook's own shortcuts, menus and drops listen further up.
const KEPT_EVENTS = "keydown keyup keypress input paste copy cut contextmenu dragenter dragover drop".split(" ");

function listen(view) {
  const { root, feed, text, end } = view;
  const on = (target, type, act) => target.addEventListener(type, (event) => act(view, event), { signal: end.signal });
  on(root, "click", onClick);
  on(root, "submit", onSubmit);
  on(root, "change", onChange);
  on(root, "keydown", onKey);
  on(document, "focusin", onElsewhere);
  on(document, "pointerdown", onElsewhere);
  on(root, "dragover", onDragOver);
  on(root, "dragleave", onDragLeave);
  on(root, "drop", onDrop);
  on(text, "paste", onPaste);
  on(text, "input", typed);
  on(feed, "scroll", onScroll);
  for (const type of KEPT_EVENTS) on(root, type, (_, event) => event.stopPropagation());
  const resized = new ResizeObserver(() => onResize(view));
  resized.observe(feed);
  end.signal.addEventListener("abort", () => resized.disconnect());
  watchTheme(view);
}

function onClick(view, { target }) {
  const pressed = target.closest("button[data-do]");
  if (pressed) ACTIONS[pressed.dataset.do](view, pressed);
}

function onSubmit(view, event) {
  event.preventDefault();
  const form = event.target;
  if (form === view.composer) send(view);
  else if (form === view.settings) applySettings(view);
  else if (form === view.rename) rename(view);
  else saveEdit(view, form);
}

function onChange(view, { target }) {
  if (target.dataset.change) tell(view, { do: target.dataset.change, name: target.value });
  if (target !== view.picker) return;
  attach(view, [...target.files]);
  target.value = ""; // the same file may be chosen again
}

function onKey(view, event) {
  if (event.isComposing || event.keyCode === 229) return; // an input method's key
  if (event.key === "s" && (event.ctrlKey || event.metaKey) && !event.altKey) return passSave(view, event);
  const act = { Enter: onEnter, Escape: onEscape }[event.key] ?? onOtherKey;
  if (act(view, event)) event.preventDefault();
}

/** Saving is the page's, but its shortcuts are off in here, and the browser would save the page as a file. */
function passSave(view, event) {
  event.preventDefault();
  const { key, code, keyCode, ctrlKey, metaKey, shiftKey } = event;
  const copy = { key, code, keyCode, ctrlKey, metaKey, shiftKey, bubbles: true, cancelable: true };
  view.el.parentElement?.dispatchEvent(new KeyboardEvent("keydown", copy));
}

function onEnter(view, { target, shiftKey }) {
  if (shiftKey || target.tagName !== "TEXTAREA") return false;
  if (target === view.text) send(view);
  else if (target.form.matches(".nbllm-edit-form")) saveEdit(view, target.form);
  else return false;
  return true;
}

function onEscape(view, { target }) {
  const edited = target.closest(".nbllm-edit-form");
  if (edited) cancelEdit(view, edited);
  else if (!view.menu.hidden) toggleMenu(view, false);
  else if (view.rename.contains(target)) closeRename(view);
  else if (!view.settings.hidden && !view.composer.contains(target)) toggleSettings(view, false);
  else if (!isIdle(view.state)) stop(view);
  else return false;
  return true;
}

function onOtherKey(view, { key, target, shiftKey, altKey, ctrlKey, metaKey }) {
  if (shiftKey || altKey || ctrlKey || metaKey) return false;
  if (target.parentElement === view.menu) return stepInMenu(view, key, target);
  if (target !== view.text || !["ArrowUp", "ArrowDown"].includes(key)) return false;
  return recall(view, key === "ArrowUp" ? -1 : 1);
}

/** Pressing or focusing anything else closes the menu. Not the loss of focus alone: Safari's buttons do not take it. */
function onElsewhere(view, { target }) {
  if (!view.menu.hidden && !view.menu.parentElement.contains(target)) toggleMenu(view, false, false);
}

function hasFiles(event) {
  return [...(event.dataTransfer?.types ?? [])].includes("Files");
}

function onDragOver(view, event) {
  if (!hasFiles(event)) return;
  event.preventDefault();
  view.composer.classList.add("nbllm-dropping");
}

function onDragLeave(view, { relatedTarget }) {
  if (!view.root.contains(relatedTarget)) view.composer.classList.remove("nbllm-dropping");
}

function onDrop(view, event) {
  view.composer.classList.remove("nbllm-dropping");
  if (!hasFiles(event)) return;
  event.preventDefault(); // the browser would leave the page for the file
  attach(view, [...event.dataTransfer.files]);
}

/** A spreadsheet's cells come as text and as a picture of it: the text is meant. */
function onPaste(view, event) {
  const { files, types } = event.clipboardData ?? { files: [], types: [] };
  if (!files.length || types.includes("text/plain")) return;
  event.preventDefault();
  attach(view, [...files]);
}

// ---- day and night

/** This page's body, and those of the frames around it that let us look (VS Code marks the outer one). */
function bodies() {
  const found = [document.body];
  for (let frame = window; frame !== frame.parent; ) {
    frame = frame.parent;
    try {
      if (frame.document.body) found.push(frame.document.body);
    } catch {
      break; // another origin
    }
  }
  return found;
}

function themeNow(query) {
  const { jpThemeLight } = document.body.dataset;
  if (jpThemeLight) return jpThemeLight === "false" ? "dark" : "light";
  const kind = bodies().find((body) => body.dataset.vscodeThemeKind)?.dataset.vscodeThemeKind;
  if (kind) return /dark$|^vscode-high-contrast$/.test(kind) ? "dark" : "light";
  return query.matches ? "dark" : "light";
}

function watchTheme(view) {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const set = () => (view.root.dataset.theme = themeNow(query));
  const observer = new MutationObserver(set);
  const attributeFilter = ["data-jp-theme-light", "data-vscode-theme-kind"];
  for (const body of bodies()) observer.observe(body, { attributes: true, attributeFilter });
  query.addEventListener("change", set, { signal: view.end.signal });
  view.end.signal.addEventListener("abort", () => observer.disconnect());
  set();
}

// ---- what anywidget calls

function initialize({ model }) {
  const state = stateOf(model);
  return () => leave(state);
}

function render({ model, el }) {
  const state = stateOf(model);
  const view = viewOf(state, model, el);
  // anywidget calls back with the front end's view as `this`; its proxies do not tell whether the comm lives.
  const commChanged = function () {
    setGone(state, (this?.model?.comm_live ?? model.comm_live) !== true);
  };
  model.on("comm_live_update", commChanged);
  state.views.add(view);
  draw(view);
  return () => close(view, () => model.off("comm_live_update", commChanged));
}

function close(view, forget) {
  view.state.views.delete(view);
  view.end.abort();
  cancelAnimationFrame(view.frame);
  clearTimeout(view.saying);
  forget();
  view.root.remove();
}

export default { initialize, render };
