// Shows what the node tells of itself. Everything a peer may have named is set as text, never as markup.
"use strict";

const { element, figure, written } = charts;
const at = (id) => document.getElementById(id);
const rows = new Map();
let shown = "", chosen = decodeURIComponent(location.hash.slice(1)), seen = "", asked = 0;

function size(bytes) {
  for (const unit of ["B", "kB", "MB"]) {
    if (bytes < 1000) return unit === "B" ? `${bytes} B` : `${bytes.toFixed(1)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} GB`;
}

const moment = (iso) => iso.slice(0, 19).replace("T", " ");

// Only what is long is broken: everything else would be, too, before a table is scrolled.
const broken = (text) => (text.length > 30 ? { class: "long" } : {});

function table(label, titles, lines, numbers = []) {
  const kind = (index, text) => (numbers.includes(index) ? { class: "number" } : broken(text));
  const head = element("tr");
  titles.forEach((title, index) => head.append(element("th", { scope: "col", ...kind(index, title) }, title)));
  const body = element("tbody");
  for (const line of lines) {
    const row = element("tr");
    line.forEach((text, index) => row.append(element("td", kind(index, text), text)));
    body.append(row);
  }
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, element("table", {}, element("thead", {}, head), body));
}

function showNode(node) {
  document.title = `${node.party} – Comity`;
  at("party").textContent = node.party;
  const address = node.address ? `, reached at ${node.address}` : "";
  at("who").textContent = `a ${node.role} node${address}; Comity ${node.version}, started ${moment(node.started)} UTC`;
}

function showRoom(room) {
  const line = (title, text, part) => {
    const box = element("div", {}, element("dt", {}, title), element("dd", {}, text));
    // What is nearly used up has another colour.
    if (part !== null) box.append(element("meter", { min: 0, low: 0.75, high: 0.9, max: 1, optimum: 0, value: part, "aria-label": title }));
    return box;
  };
  const part = (used, limit) => (limit ? Math.min(1, used / limit) : null);
  const { sessions, epsilon, disk } = room;
  at("room").replaceChildren(
    line("sessions at a time", `${sessions.used} of ${sessions.limit}`, part(sessions.used, sessions.limit)),
    line("privacy budget, ε", epsilon.limit === null ? `${written(epsilon.used)} spent, no limit` : `${written(epsilon.used)} of ${written(epsilon.limit)} spent`, part(epsilon.used, epsilon.limit)),
    line("disk", `${size(disk.used)} used, ${size(disk.promised)} promised${disk.limit === null ? "" : ` of ${size(disk.limit)}`}`, part(disk.used, disk.limit)),
    line("requests in line", String(room.queued), null),
  );
}

// A row stays the same element, so that whoever stands on its link goes on standing there.
function showSessions(sessions) {
  at("no-sessions").hidden = sessions.length > 0;
  at("sessions-table").hidden = sessions.length === 0;
  for (const each of [...sessions].reverse()) {
    let row = rows.get(each.session);
    if (!row) {
      const link = element("a", { href: `#${encodeURIComponent(each.session)}` }, each.session);
      const bar = element("progress", { max: each.rounds, "aria-label": `rounds of ${each.session}` });
      const count = element("span");
      row = { state: element("td"), bar, count };
      row.line = element("tr", {}, row.state, element("td", broken(each.session), link), element("td", {}, bar, count),
        element("td", broken(each.peers.join(", ")), each.peers.join(", ")), element("td", {}, each.protocol.replaceAll("_", "-")), element("td", {}, each.role), element("td", {}, moment(each.begun)));
      rows.set(each.session, row);
    }
    row.state.textContent = each.state;
    row.state.className = `state-${each.state}`;
    row.bar.value = each.rounds_finished;
    row.count.textContent = `${each.rounds_finished} of ${each.rounds}`;
    row.line.classList.toggle("chosen", each.session === chosen);
    if (row.line.parentNode !== at("session-rows")) {
      at("session-rows")[rows.size > sessions.length ? "append" : "prepend"](row.line);
    }
  }
  const listed = [...sessions].reverse().map((each) => rows.get(each.session).line);
  if (listed.some((line, index) => at("session-rows").children[index] !== line)) at("session-rows").replaceChildren(...listed);
  const known = sessions.map((each) => each.session);
  if (!known.includes(chosen)) chosen = known.length ? known[known.length - 1] : "";
  follow(sessions.find((each) => each.session === chosen));
}

// Asks again for the session that is shown when something about it is another than it was.
function follow(summary) {
  for (const [name, row] of rows) {
    row.line.classList.toggle("chosen", name === chosen);
    row.line.querySelector("a").toggleAttribute("aria-current", name === chosen);
  }
  at("session").hidden = !summary;
  const state = JSON.stringify(summary ?? null);
  if (!summary || state === seen) return;
  seen = state;
  asked += 1;
  const mine = asked;
  fetch(`sessions/${encodeURIComponent(summary.session)}`)
    .then(async (answer) => {
      if (!answer.ok) throw new Error(await answer.text());
      return answer.json();
    })
    .then((session) => { if (mine === asked) showSession(session); })
    .catch((error) => {
      if (mine !== asked) return;
      seen = "";
      at("session-news").textContent = `this session cannot be shown: ${error.message}`;
    });
}

function showSession(session) {
  const same = shown === session.session;
  shown = session.session;
  const open = new Set([...at("session").querySelectorAll("figure details[open]")].map((each) => each.dataset.key));
  at("session-title").textContent = `Session ${session.session}`;
  // One that has stopped, or that failed and whose peers have not been told, has no result yet.
  const why = session.ended.what || session.why;
  const ended = why ? `: ${why}${session.ended.action ? `; ${session.ended.action}` : ""}` : "";
  at("session-news").textContent = `${session.state}, ${session.rounds_finished} of ${session.rounds} rounds finished${ended}`;
  at("session-waits").replaceChildren(...session.waits.map((each) => {
    const what = each.waits_for || each.reason;
    const subject = each.subject && !what.includes(each.subject) ? ` (${each.subject})` : "";
    return element("li", {}, `waits since ${moment(each.since)} UTC for ${what}${subject}; it ends with ${each.ends_with || "that"}`);
  }));
  showOutcome(session.outcome);
  showCurves(at("session-rounds"), "Rounds", session.curves, same ? open : new Set());
  showCurves(at("session-statement"), session.statement.title, session.statement.curves, same ? open : new Set());
  const kinds = [...new Set([...Object.keys(session.sent), ...Object.keys(session.received)])].sort();
  const lines = kinds.map((kind) => [kind, size(session.sent[kind] ?? 0), size(session.received[kind] ?? 0)]);
  at("session-crossed").replaceChildren(element("h3", {}, "What crossed"), table("what crossed in this session", ["kind", "sent", "received"], lines, [1, 2]));
  at("session-contract").querySelector("pre").textContent = JSON.stringify(session.terms, null, 2);
}

function showOutcome(outcome) {
  const place = at("session-outcome");
  if (!outcome.rows || !outcome.rows.length) { place.replaceChildren(); return; }
  const most = Math.max(...outcome.rows.map((each) => Math.abs(each.value))) || 1;
  const body = element("tbody");
  for (const each of outcome.rows) {
    const row = element("tr", each.is_it ? { class: "it" } : {}, element("th", { scope: "row" }, each.title), element("td", { class: "number" }, written(each.value, each.kind)),
      element("td", {}, element("meter", { min: 0, max: 1, value: Math.max(0, each.value / most), "aria-hidden": "true" })));
    body.append(row);
  }
  place.replaceChildren(element("h3", {}, `What it came to: ${outcome.title}`), element("table", {}, body));
}

function showCurves(place, title, curves, open) {
  if (!curves.length) { place.replaceChildren(); return; }
  const grid = element("div", { class: "charts" });
  curves.forEach((curve, index) => {
    const made = figure(curve), details = made.querySelector("details");
    details.dataset.key = `${place.id} ${index}`;
    details.open = open.has(details.dataset.key);
    grid.append(made);
  });
  const heading = element("h3", {}, title.charAt(0).toUpperCase() + title.slice(1));
  // Whoever reads a table of numbers goes on reading it.
  const focused = place.contains(document.activeElement) ? document.activeElement.closest("figure details")?.dataset.key : undefined;
  place.replaceChildren(heading, grid);
  if (focused) [...place.querySelectorAll("details")].find((each) => each.dataset.key === focused)?.querySelector("summary").focus();
}

function showToday(crossed) {
  const lines = new Map();
  for (const each of crossed) {
    const key = JSON.stringify([each.peer, each.kind]);
    if (!lines.has(key)) lines.set(key, { peer: each.peer, kind: each.kind, sent: 0, received: 0 });
    lines.get(key)[each.direction] += each.size;
  }
  const sorted = [...lines.values()].sort((a, b) => a.peer.localeCompare(b.peer) || a.kind.localeCompare(b.kind));
  const shownLines = sorted.map((each) => [each.peer, each.kind, size(each.sent), size(each.received)]);
  at("today").replaceChildren(shownLines.length ? table("what crossed today", ["peer", "kind", "left", "came"], shownLines, [2, 3]) : element("p", {}, "Nothing yet."));
}

function showLedger(ledger) {
  at("ledger-length").textContent = ledger.entries ? `The last ${ledger.tail.length} of ${ledger.entries} entries, newest first; comity ledger verify checks all.` : "";
  const lines = [...ledger.tail].reverse().map((each) => [moment(each.time), each.session, each.peer, each.units,
    [each.matter, each.direction, each.kind].filter(Boolean).join(" "), each.size ? size(each.size) : "", each.hash.slice(0, 12)]);
  at("ledger").replaceChildren(lines.length ? table("the ledger's last entries", ["time (UTC)", "session", "with", "of", "what", "size", "hash"], lines, [5]) : element("p", {}, "Nothing yet."));
}

function line(state, text) {
  at("line").className = `line ${state}`;
  at("line").textContent = text;
}

let last = [];
const changes = new EventSource("changes");
changes.addEventListener("open", () => line("live", "live"));
changes.addEventListener("error", () => line("cut", "the node does not answer; this page tries again by itself"));
const show = {
  node: showNode, room: showRoom, today: showToday, ledger: showLedger,
  sessions: (sessions) => { last = sessions; showSessions(sessions); },
};
for (const [name, how] of Object.entries(show)) changes.addEventListener(name, (event) => how(JSON.parse(event.data)));
addEventListener("hashchange", () => {
  const name = decodeURIComponent(location.hash.slice(1));
  if (!last.some((each) => each.session === name)) return;
  chosen = name;
  follow(last.find((each) => each.session === name));
  at("session-title").scrollIntoView();
});
