"use strict";
const SVG = "http://www.w3.org/2000/svg";
const at = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
let runs = [], source = null;

const chosenId = () => decodeURIComponent(location.hash.slice(1));
const chosen = () => runs.find(run => run.id === chosenId()) || runs[0];

const count = value => value == null ? "–" : Math.round(value).toLocaleString("en");
const score = value => value == null ? "–" : Math.abs(value) >= 10
    ? value.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 }) : value.toFixed(2);
const short = value => Math.abs(value) >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M`
    : Math.abs(value) >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : `${+value.toPrecision(3)}`;
function duration(seconds) {
    if (seconds == null) return "–";
    const minutes = Math.round(seconds / 60);
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (minutes < 90) return `${minutes} min`;
    if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    return `${(minutes / 1440).toFixed(1)} days`;
}

function element(name, text, attributes) {
    const made = document.createElement(name);
    if (text != null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    return made;
}

function drawn(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text != null) made.textContent = text;
    return made;
}

function ticks(low, high, about) {
    const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(+tick.toPrecision(12));
    return found;
}

function drawChart(run) {
    const svg = at("chart"), box = svg.getBoundingClientRect(), 
        others = runs.filter(other => other !== run && other.game === run.game && other.total === run.total);
    svg.replaceChildren();
    svg.dataset.points = run.num_scores || 0;
    svg.dataset.run = run.id;
    const points = [...others, run].flatMap(each => each.scores), values = points.map(point => point[1]);
    const { width, height } = box, right = 12, bottom = 22, top = 10;
    if (!points.length || width < 60) {
        svg.append(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "no evaluation yet"));
        at("legend").textContent = "";
        return;
    }
    let low = Math.min(...values), high = Math.max(...values);
    const reach = (high - low) || Math.abs(high) || 1;
    const near = [["random", run.random], ["human", run.human]].filter(level => level[1] != null
        && level[1] > low - reach && level[1] < high + reach);
    for (const [, level] of near) { low = Math.min(low, level); high = Math.max(high, level); }
    if (low === high) { low -= reach / 2; high += reach / 2; }
    const last = Math.max(...points.map(point => point[0])), marks = ticks(low, high, Math.max(2, height / 60));
    const left = 10 + 7 * Math.max(...marks.map(mark => short(mark).length));
    const x = steps => left + (width - left - right) * steps / last;
    const y = value => top + (height - top - bottom) * (high - value) / (high - low);
    for (const mark of marks) {
        svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(mark), y2: y(mark) }),
            drawn("text", { x: left - 8, y: y(mark) + 4, "text-anchor": "end" }, short(mark)));
    }
    for (const mark of ticks(0, last, Math.max(2, width / 130)))
        svg.append(drawn("text", { x: x(mark), y: height - 4, "text-anchor": "middle" }, short(mark)));
    for (const [name, level] of near) {
        svg.append(drawn("line", { class: "level", x1: left, x2: width - right, y1: y(level), y2: y(level) }),
            drawn("text", { x: width - right, y: y(level) - 5, "text-anchor": "end" }, name));
    }
    for (const each of [...others, run]) {
        const path = each.scores.map(point => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join("L");
        if (path) svg.append(drawn("path", { class: each === run ? "curve chosen" : "curve", d: `M${path}` }));
    }
    const end = run.scores[run.scores.length - 1];
    if (end) svg.append(drawn("circle", { cx: x(end[0]), cy: y(end[1]), r: 4 }));
    const far = [["a random policy", run.random], ["a human", run.human]].filter(level => level[1] != null);
    at("legend").textContent = ["score over agent steps", others.length ? `gray: the other runs of ${run.game}` : "",
        ...far.map(level => `${level[0]}: ${score(level[1])}`)].filter(Boolean).join(" · ");
}

function drawRun(run) {
    at("title").textContent = run.name;
    document.title = `${run.last == null ? "" : score(run.last) + " · "}${run.name}`;
    at("subtitle").textContent = run.game ? `${run.agent}, ${run.layers}, seed ${run.seed}: ${run.status}` : run.status;
    at("reason").hidden = !run.reason;
    at("reason").textContent = `${run.status}: ${run.reason}`;
    const share = run.total ? Math.min(100, 100 * run.steps / run.total) : 0;
    at("progress").setAttribute("aria-valuenow", share.toFixed(0));
    at("progress").firstElementChild.style.width = `${share}%`;
    const running = run.status === "running" || run.status === "degraded";
    const numbers = [["last score", score(run.last)], ["best score", score(run.best)],
        [`of ${count(run.total)} steps`, `${share.toFixed(share < 10 ? 1 : 0)}%`], ["steps/s", running ? count(run.speed) : "–"],
        ["left", running ? duration(run.left_s) : "–"], ["epsilon", run.epsilon == null ? "–" : run.epsilon.toFixed(2)]];
    at("numbers").replaceChildren(...numbers.map(([name, value]) => {
        const cell = element("div");
        cell.append(element("dt", name), element("dd", value));
        return cell;
    }));
    drawChart(run);
}

function drawTable(run) {
    at("runs").replaceChildren(...runs.map(each => {
        const row = element("tr"), name = element("td"), choose = element("button", each.name, { class: `mark ${each.status}` });
        if (each === run) row.setAttribute("aria-current", "true");
        choose.onclick = () => { location.hash = encodeURIComponent(each.id); };
        const bad = ["failed", "stalled", "unreadable", "degraded"].includes(each.status);
        name.append(choose, element("small", [each.status, each.reason].filter(Boolean).join(": "), bad ? { class: "bad" } : {}));
        const running = each.status === "running";
        row.append(name, element("td", `${count(each.steps)} of ${count(each.total)}`, { class: "wide" }), element("td", score(each.last)),
            element("td", score(each.best), { class: "wide" }), element("td", running ? count(each.speed) : "–", { class: "wide" }),
            element("td", running ? duration(each.left_s) : "–"));
        return row;
    }));
    const numbers = {};
    for (const each of runs) numbers[each.status] = (numbers[each.status] || 0) + 1;
    at("summary").textContent = Object.entries(numbers).map(([status, number]) => `${number} ${status}`).join(", ");
}

function draw() {
    const run = chosen();
    document.querySelector("main").hidden = !run;
    if (!run) { at("summary").textContent = "waiting for the first run"; return; }
    drawRun(run);
    drawTable(run);
}

function drawPlay(play) {
    at("frame").hidden = !play.image;
    at("absent").hidden = !!play.image;
    if (play.problem) { at("absent").textContent = play.problem; at("played").textContent = ""; at("values").replaceChildren(); return; }
    at("frame").src = play.image;
    at("frame").onload = () => at("frame").classList.toggle("square", at("frame").naturalWidth !== 160);
    at("played").textContent = [`game ${play.game}`, `score ${score(play.score)}`, play.lives ? `lives ${play.lives}` : "",
        `trained ${short(play.trained_steps)} steps`].filter(Boolean).join(" · ");
    const known = play.q.filter(q => q != null), low = Math.min(...known), high = Math.max(...known);
    at("values").replaceChildren(...play.actions.map((name, number) => {
        const q = play.q[number], is = number === play.action;
        const row = element("li", null, { class: is ? `chosen${play.explored ? " random" : ""}` : "" });
        const bar = element("div", null, { class: "bar" }), filled = element("div");
        filled.style.width = `${q == null ? 0 : high > low ? 6 + 94 * (q - low) / (high - low) : 50}%`;
        bar.append(filled);
        row.append(element("span", is && play.explored ? `${name} (random)` : name), bar,
            element("span", q == null ? "–" : q.toFixed(2), { class: "number" }));
        return row;
    }));
}

function connect() {
    if (source) source.close();
    const run = chosen(), query = new URLSearchParams();
    if (token) query.set("token", token);
    if (run) query.set("run", run.id);
    source = new EventSource(`events?${query}`);
    const asked = run && run.id;
    source.addEventListener("runs", event => {
        runs = JSON.parse(event.data);
        draw();
        const now = chosen();
        if (now && now.id !== asked) connect();
    });
    source.addEventListener("play", event => drawPlay(JSON.parse(event.data)));
    source.onopen = () => { at("link").textContent = "live"; at("link").className = "open"; };
    source.onerror = () => { at("link").textContent = "the server is gone; the page waits for it"; at("link").className = ""; };
}

addEventListener("hashchange", () => { draw(); connect(); });
new ResizeObserver(() => { if (chosen()) drawChart(chosen()); }).observe(at("chart"));
connect();
