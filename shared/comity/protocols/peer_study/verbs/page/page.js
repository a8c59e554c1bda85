"use strict";

const KEYS = "1234567890abcdefghijklmnopqrstuvwxyz";
const ONCE = new Set([" ", ".", ",", "/", "Backspace", "Enter"]);
const SMALL = 200;
const $ = (id) => document.getElementById(id);
const state = { task: null, at: 0, shown: null, said: [], busy: Promise.resolve(), unsure: false, version: null };

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// What people type goes out in the order in which they typed it.
function send(path, body) {
  const sent = state.busy.then(async () => {
    const answer = await fetch(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const said = await answer.json();
    state.version = said.version;
    return said;
  });
  state.busy = sent.catch(() => {});
  return sent;
}

// A class that is called by one character is on that key; the others are in order.
function keys() {
  const names = (state.task.classes || []).map((each) => each.toLowerCase());
  const own = names.every((each) => each.length === 1 && KEYS.includes(each)) && new Set(names).size === names.length;
  return own ? names : [...KEYS].slice(0, names.length);
}

function alertOf(text) { $("alert").textContent = text; }

function current() { return state.task ? state.task.samples[state.at] : undefined; }

function isDone(sample) { return sample.said !== null; }

// Whether what was typed here is newer than a picture of the task. Versions are of one queue, which a node that starts anew has made.
function isStale(task) {
  if (!state.version || !task.version) return false;
  return task.version[0] === state.version[0] && task.version[1] < state.version[1];
}

async function settled() {
  let before;
  do {
    before = state.busy;
    await before;
  } while (before !== state.busy);
}

function take(task) {
  if (isStale(task)) return;
  const before = current();
  const isNew = !state.task || state.task.step !== task.step;
  state.task = task;
  if (isNew) {
    state.at = 0;
    state.said = [];
    state.shown = null;
    buildClasses();
  } else if (before) {
    const found = task.samples.findIndex((each) => each.sample === before.sample);
    state.at = found >= 0 ? found : 0;
  }
  if (isNew) {
    const open = task.samples.findIndex((each) => !isDone(each));
    state.at = open >= 0 ? open : 0;
  }
  show();
}

function show() {
  const task = state.task;
  const samples = task.samples;
  const left = samples.filter((each) => !(each.said && each.said.is_final));
  const busy = samples.length > 0 && left.length > 0;
  $("work").hidden = !busy;
  $("samples").hidden = !busy;
  $("idle").hidden = busy;
  $("title").textContent = task.session ? `Session ${task.session}` + (task.step === null ? "" : `, step ${task.step}`) : "Label samples";
  $("who").textContent = task.annotator ? `${task.annotator} labels.` : "";
  const done = samples.filter(isDone).length;
  $("progress").max = Math.max(samples.length, 1);
  $("progress").value = done;
  $("count").textContent = samples.length ? `${done} of ${samples.length} labelled` : "";
  if (!busy) {
    $("idle-title").textContent = samples.length ? "Everything is handed in" : "Nothing is to be labelled now";
    $("idle-text").textContent = task.why || (samples.length
      ? "Others still have to label. The session goes on when they have."
      : "The session trains, or waits for others. The next samples appear here by themselves.");
    state.shown = null;
    return;
  }
  showList();
  showSample();
  const open = samples.length - done;
  $("hand-in").disabled = !samples.some((each) => each.said && !each.said.is_final);
  $("hand-in-about").textContent = open ? `${open} without a label; what is handed in is changed no more.` : "All are labelled. What is handed in is changed no more.";
}

function showList() {
  const list = $("samples");
  list.replaceChildren(...state.task.samples.map((each, at) => {
    const button = element("button", String(at + 1));
    const said = each.said;
    button.setAttribute("aria-current", String(at === state.at));
    button.setAttribute("aria-label", `Sample ${at + 1}, ${said ? named(said) : "not labelled"}`);
    if (said) button.classList.add(said.label === null ? "skipped" : "labelled");
    if (said && said.is_unsure) button.classList.add("unsure");
    if (said && said.is_final) button.classList.add("final");
    button.addEventListener("click", () => go(at));
    const item = element("li");
    item.append(button);
    return item;
  }));
}

function named(said) { return said.label === null ? "skipped" : state.task.classes[said.label]; }

function showSample() {
  const sample = current();
  const said = sample.said;
  for (const each of $("classes").children) {
    each.setAttribute("aria-pressed", String(Boolean(said) && said.label === Number(each.dataset.label)));
    each.disabled = Boolean(said) && said.is_final;
  }
  $("sample-name").textContent = `Sample ${state.at + 1} of ${state.task.samples.length}: ${sample.sample}` + (said && said.label === null ? " (skipped)" : "");
  $("undo").disabled = !state.said.length && !(said && !said.is_final);
  $("skip").setAttribute("aria-pressed", String(Boolean(said) && said.label === null));
  if (state.shown !== sample.sample) {
    state.shown = sample.sample;
    state.unsure = Boolean(said) && said.is_unsure;
    $("comment").value = said ? said.comment : "";
    draw(sample.sample);
  }
  $("unsure").setAttribute("aria-pressed", String(state.unsure));
}

async function draw(name) {
  const place = $("sample");
  const address = `sample?sample=${encodeURIComponent(name)}`;
  const task = state.task;
  if (task.kind === "image") {
    const image = new Image();
    image.alt = `Sample ${state.at + 1}`;
    image.addEventListener("load", () => { image.classList.toggle("small", image.naturalWidth < SMALL); });
    image.addEventListener("error", () => explain(address));
    image.src = address;
    place.replaceChildren(image);
    ahead();
    return;
  }
  try {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const made = task.kind === "text" ? element("div", await answer.text(), "text") : table(task.columns, await answer.json());
    if (state.shown === name) place.replaceChildren(made);
  } catch (error) {
    alertOf(error.message);
  }
}

async function explain(address) {
  const answer = await fetch(address);
  if (!answer.ok) alertOf((await answer.text()).trim());
}

// The next picture is there when it is asked for.
function ahead() {
  const next = state.task.samples[state.at + 1];
  if (next) new Image().src = `sample?sample=${encodeURIComponent(next.sample)}`;
}

function table(columns, row) {
  const made = element("table");
  columns.forEach((name, at) => {
    const line = element("tr");
    const head = element("th", name);
    head.scope = "row";
    line.append(head, element("td", String(Number(row[at].toPrecision(7)))));
    made.append(line);
  });
  return made;
}

function buildClasses() {
  const classes = state.task.classes || [];
  $("search").hidden = classes.length <= KEYS.length;
  $("search").value = "";
  const typed = keys();
  $("classes").replaceChildren(...classes.map((name, label) => {
    const button = element("button");
    if (label < typed.length) button.append(element("kbd", typed[label]), " ");
    button.append(name);
    button.dataset.label = label;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => say({ label }));
    return button;
  }));
  const guidelines = state.task.guidelines || "";
  $("guidelines").textContent = guidelines;
  $("guidelines-part").hidden = !guidelines;
}

function go(at) {
  state.at = Math.max(0, Math.min(at, state.task.samples.length - 1));
  alertOf("");
  show();
}

function onward() {
  const samples = state.task.samples;
  const order = [...samples.keys()].slice(state.at + 1).concat([...samples.keys()].slice(0, state.at));
  const next = order.find((at) => !isDone(samples[at]));
  if (next !== undefined) state.at = next;
}

async function say(what, stay) {
  const sample = current();
  if (!sample || (sample.said && sample.said.is_final)) return;
  const before = sample.said;
  const said = { label: null, is_unsure: state.unsure, comment: $("comment").value, is_final: false, ...what };
  sample.said = said;
  if (!stay) {
    state.said.push(sample.sample);
    $("search").value = "";
    filter();
    onward();
  }
  alertOf("");
  show();
  const body = { sample: sample.sample, unsure: said.is_unsure, comment: said.comment };
  if (said.label === null) body.skipped = true; else body.label = said.label;
  try {
    await send("say", body);
  } catch (error) {
    sample.said = before;
    alertOf(error.message);
    show();
  }
}

// A mark or a comment on what is labelled already is kept at once; on what is not, it goes with the label.
function again() {
  const sample = current();
  if (sample && sample.said && !sample.said.is_final) say({ label: sample.said.label }, true);
  else show();
}

async function undo() {
  const sample = current();
  const name = state.said.length ? state.said.pop() : sample && sample.sample;
  const at = state.task.samples.findIndex((each) => each.sample === name);
  if (at < 0) return;
  const found = state.task.samples[at];
  if (!found.said || found.said.is_final) return;
  found.said = null;
  state.at = at;
  state.shown = null;
  alertOf("");
  show();
  try {
    await send("take-back", { sample: name });
  } catch (error) {
    alertOf(error.message);
  }
}

async function handIn() {
  if ($("hand-in").disabled) return;
  $("hand-in").disabled = true;
  try {
    await send("hand-in", {});
    state.said = [];
    for (const each of state.task.samples) if (each.said) each.said.is_final = true;
    alertOf("");
  } catch (error) {
    alertOf(error.message);
  }
  onward();
  show();
}

function filter() {
  const wanted = $("search").value.trim().toLowerCase();
  for (const each of $("classes").children) {
    each.hidden = !state.task.classes[Number(each.dataset.label)].toLowerCase().includes(wanted);
  }
}

function pressed(event) {
  if (!state.task || $("work").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("comment")) {
    if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) {
      event.preventDefault();
      $("comment").blur();
    }
    return;
  }
  if (event.target === $("search")) {
    if (event.key === "Escape") $("search").blur();
    if (event.key === "Enter") {
      const first = [...$("classes").children].find((each) => !each.hidden);
      if (first) { $("search").blur(); first.click(); }
    }
    return;
  }
  const label = keys().indexOf(event.key.toLowerCase());
  // A key that is held down says one thing, of one sample.
  if (event.repeat && (label >= 0 || ONCE.has(event.key))) {
    event.preventDefault();
    return;
  }
  const onButton = event.target instanceof HTMLButtonElement;
  if (label >= 0) say({ label });
  else if (event.key === " " && !onButton) say({ label: null });
  else if (event.key === ".") mark();
  else if (event.key === ",") $("comment").focus();
  else if (event.key === "/" && !$("search").hidden) $("search").focus();
  else if (event.key === "Backspace") undo();
  else if (event.key === "ArrowLeft") go(state.at - 1);
  else if (event.key === "ArrowRight") go(state.at + 1);
  else if (event.key === "Enter" && !onButton) handIn();
  else return;
  event.preventDefault();
}

function mark() {
  state.unsure = !state.unsure;
  again();
}

// A class that was clicked must not take the keys that come next.
document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLElement && event.target.closest("button") && event.detail > 0) document.activeElement.blur();
});
document.addEventListener("keydown", pressed);
$("skip").addEventListener("click", () => say({ label: null }));
$("unsure").addEventListener("click", mark);
$("undo").addEventListener("click", undo);
$("previous").addEventListener("click", () => go(state.at - 1));
$("next").addEventListener("click", () => go(state.at + 1));
$("hand-in").addEventListener("click", handIn);
$("comment").addEventListener("change", again);
$("search").addEventListener("input", filter);

const line = new EventSource("changes");
line.addEventListener("open", () => { $("line").textContent = "connected"; $("line").className = "line live"; });
line.addEventListener("error", () => { $("line").textContent = "not connected: what you label is not kept until it is back"; $("line").className = "line cut"; });
line.addEventListener("task", (event) => {
  const task = JSON.parse(event.data);
  settled().then(() => take(task));
});
