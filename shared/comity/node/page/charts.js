// Curves over rounds, as SVG, with the numbers behind them for those who do not see them.
"use strict";

const charts = (() => {
  const WIDTH = 360, HEIGHT = 190, LEFT = 62, RIGHT = 12, TOP = 10, BOTTOM = 36, MOST_LINES = 16;
  const COLOURS = 8, DASHES = ["", "6 3", "2 3", "8 3 2 3"];

  // No two of as many lines as there are colours and dashes together look alike.
  function look(index) {
    return { colour: `line-${index % COLOURS}`, dashes: DASHES[(index + Math.floor(index / COLOURS)) % DASHES.length] };
  }

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  function written(value, kind) {
    if (typeof value !== "number") return "–";
    if (kind === "share" || kind === "shares") return `${(100 * value).toFixed(1)} %`;
    if (kind === "integer") return value.toLocaleString("en");
    if (kind === "seconds") return `${value.toFixed(2)} s`;
    return String(Number(value.toPrecision(4)));
  }

  // Ends and steps of an axis at round numbers.
  function steps(least, most, whole) {
    // Of what is 0 all along there is hardly ever less.
    if (least === 0 && most === 0) most = 1;
    if (least === most) { const beside = Math.abs(least) * 0.1; least -= beside; most += beside; }
    // Steps are up to 2.5 times as long: two are always marked.
    const rough = (most - least) / 5, power = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    if (whole) step = Math.max(1, Math.round(step));
    const found = [];
    for (let at = Math.ceil(least / step - 1e-9) * step; at <= most + step * 1e-9; at += step) found.push(at);
    return { least, most, found };
  }

  function logarithmic(least, most) {
    const found = [];
    for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += 1) {
      for (const each of most / least > 30 ? [1] : [1, 2, 5]) {
        const at = each * 10 ** power;
        if (at >= least * 0.999 && at <= most * 1.001) found.push(at);
      }
    }
    return found.length > 1 ? found : [least, most];
  }

  function tick(value, kind) {
    if (kind === "share" || kind === "shares") return `${Number((100 * value).toPrecision(3))}`;
    return String(Number(value.toPrecision(3)));
  }

  function picture(curve) {
    const names = Object.keys(curve.lines).slice(0, MOST_LINES);
    const values = names.flatMap((name) => curve.lines[name]).filter((each) => typeof each === "number");
    const rounds = curve.rounds, first = rounds[0], last = rounds[rounds.length - 1];
    const isLog = curve.scale === "log";
    let least = Math.min(...values), most = Math.max(...values), found;
    if (isLog) {
      if (least === most) { least *= 0.9; most *= 1.1; }
      found = logarithmic(least, most);
    } else {
      ({ least, most, found } = steps(least, most, curve.kind === "integer"));
    }
    const scaled = isLog ? Math.log : (each) => each;
    const x = (round) => LEFT + (last === first ? 0.5 : (round - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (scaled(value) - scaled(least)) / (scaled(most) - scaled(least)) * (HEIGHT - TOP - BOTTOM);
    const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said(curve) });
    for (const at of found) {
      svg.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(at), y2: y(at) }));
      svg.append(drawn("text", { x: LEFT - 6, y: y(at) + 4, "text-anchor": "end" }, tick(at, curve.kind)));
    }
    svg.append(drawn("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }));
    const marks = last === first ? [first] : steps(first, last, true).found;
    for (const at of marks) svg.append(drawn("text", { x: x(at), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, String(at)));
    svg.append(drawn("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "round"));
    const unit = `${curve.unit || "value"}${isLog ? ", log" : ""}`;
    const middle = (HEIGHT - BOTTOM + TOP) / 2;
    svg.append(drawn("text", { x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }, unit));
    names.forEach((name, index) => {
      const { colour, dashes } = look(index);
      let path = "", pen = false;
      curve.lines[name].forEach((value, at) => {
        if (typeof value !== "number") { pen = false; return; }
        path += `${pen ? "L" : "M"}${x(rounds[at]).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = true;
        if (rounds.length <= 30) svg.append(drawn("circle", { class: `point ${colour}`, cx: x(rounds[at]), cy: y(value), r: 2.5 }));
      });
      svg.append(drawn("path", { class: `curve ${colour}`, d: path, "stroke-dasharray": dashes }));
    });
    return { svg, names };
  }

  // What a chart shows, in a sentence for screen readers.
  function said(curve) {
    const parts = Object.entries(curve.lines).map(([name, values]) => {
      const known = values.filter((each) => typeof each === "number");
      const range = known.length ? `from ${written(known[0], curve.kind)} to ${written(known[known.length - 1], curve.kind)}` : "no value yet";
      return name ? `${name} ${range}` : range;
    });
    return `${curve.title} over ${curve.rounds.length} rounds: ${parts.join("; ")}`;
  }

  function legend(names) {
    const list = element("ul", { class: "legend" });
    names.forEach((name, index) => {
      const key = drawn("svg", { viewBox: "0 0 24 10", "aria-hidden": "true" });
      const { colour, dashes } = look(index);
      key.append(drawn("path", { class: `curve ${colour}`, d: "M0 5H24", "stroke-dasharray": dashes }));
      list.append(element("li", {}, key, name));
    });
    return list;
  }

  function numbers(curve) {
    const names = Object.keys(curve.lines);
    const head = element("tr", {}, element("th", { scope: "col" }, "round"));
    for (const name of names) head.append(element("th", { scope: "col", class: "number" }, name || curve.title));
    const body = element("tbody");
    curve.rounds.forEach((round, at) => {
      const row = element("tr", {}, element("th", { scope: "row" }, String(round)));
      for (const name of names) row.append(element("td", { class: "number" }, written(curve.lines[name][at], curve.kind)));
      body.append(row);
    });
    const table = element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `${curve.title}, numbers` },
      element("table", {}, element("thead", {}, head), body));
    return element("details", {}, element("summary", {}, "numbers"), table);
  }

  function figure(curve) {
    const { svg, names } = picture(curve);
    const caption = element("figcaption", {}, element("strong", {}, curve.title), curve.about);
    const made = element("figure", {}, caption, svg);
    if (names.length > 1 || names[0]) made.append(legend(names));
    if (Object.keys(curve.lines).length > names.length) made.append(element("p", {}, `the first ${names.length} of ${Object.keys(curve.lines).length} lines`));
    made.append(numbers(curve));
    return made;
  }

  return { element, figure, written };
})();
