"use strict";

const byId = (id) => document.getElementById(id);
// What is hidden of one exam hides nothing of the next.
const kept = {
  get(name, fallback) { try { return sessionStorage.getItem(`${name} ${location.pathname}`) ?? fallback; } catch { return fallback; } },
  set(name, value) { try { sessionStorage.setItem(`${name} ${location.pathname}`, value); } catch { /* not allowed here */ } },
};

// --- theme

byId("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not allowed here */ }
});

// --- messages

function tell(message, bad = false) {
  const toast = document.createElement("p");
  toast.textContent = message;
  toast.className = bad ? "toast bad" : "toast";
  byId("toasts").append(toast);
  setTimeout(() => toast.remove(), bad ? 12000 : 6000);
}

document.body.addEventListener("told", (event) => tell(event.detail.message));
document.body.addEventListener("htmx:responseError", (event) => {
  const { xhr, requestConfig } = event.detail;
  if (xhr.status === 401) return; // htmx goes to where one logs in
  let words = `The node answered ${xhr.status}.`;
  try { words = JSON.parse(xhr.responseText).detail; } catch { /* no problem document */ }
  if (requestConfig.verb !== "get") tell(words, true);
});
// What a button asked may be answered after the live part around it was loaded anew: its events would reach nobody.
const forward = (event) => {
  if (!event.currentTarget.isConnected) document.body.dispatchEvent(new CustomEvent(event.type, { detail: event.detail }));
};
document.body.addEventListener("htmx:beforeRequest", ({ detail: { elt } }) => {
  for (const name of ["told", "changed", "htmx:responseError", "htmx:sendError"]) elt.addEventListener(name, forward);
});
// A button that is replaced while it is held down is not clicked: the live part waits for the next time.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.matches(":active")) event.detail.shouldSwap = false;
});
for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.body.addEventListener(name, ({ detail: { requestConfig } }) => {
    if (requestConfig.verb !== "get") tell("The node does not answer: look whether it was done.", true);
  });
}

// What was unfolded stays so when the live part around it is loaded anew; the focus stays by htmx, where a thing has an id.
const unfolded = new Set();
document.addEventListener("toggle", ({ target }) => { if (target.open) unfolded.add(target.id); else unfolded.delete(target.id); }, true);
document.body.addEventListener("htmx:afterSettle", () => { for (const id of unfolded) byId(id)?.setAttribute("open", ""); });

// --- live parts: what is shown is told to be old from STALE after the last good answer, whatever the reason, until the next

const STALE = 20000;
const PATIENCE = 15000; // a request that hangs would hold up all that follow
let seenAt = Date.now();
document.body.addEventListener("htmx:configRequest", ({ detail }) => { if (detail.verb === "get") detail.timeout = PATIENCE; });
document.body.addEventListener("htmx:afterOnLoad", ({ detail: { xhr, requestConfig } }) => {
  if (requestConfig.verb !== "get" || xhr.status >= 400) return;
  seenAt = Date.now();
  byId("stale").hidden = true;
});
setInterval(() => {
  const notice = byId("stale");
  if (!notice.hidden || !document.querySelector("[hx-get]") || Date.now() - seenAt < STALE) return;
  notice.textContent = `Not up to date: the node has not answered since ${new Date(seenAt).toLocaleString()}. It is asked again and again.`;
  notice.hidden = false;
}, 1000);

// --- exam: layers, outlines, threshold, what is filled in; chosen for this exam in this tab, whatever is loaded anew

const filled = new Map();
document.addEventListener("input", ({ target }) => { if (target.matches("#destination, #why")) filled.set(target.id, target.value); });

function applyFilled() {
  for (const [id, value] of filled) {
    const field = byId(id);
    if (!field) filled.delete(id); // it was sent, or there is nothing left to say it of
    else if (!field.options || [...field.options].some((option) => option.value === value)) field.value = value;
  }
}
document.body.addEventListener("htmx:afterSwap", applyFilled);

function applyThreshold() {
  const slider = byId("threshold");
  if (!slider) return;
  const least = Number(slider.value);
  byId("threshold-value").textContent = String(least);
  const marks = [...document.querySelectorAll(".marks li[data-score]")];
  for (const mark of document.querySelectorAll("[data-score]")) mark.classList.toggle("weak", Number(mark.dataset.score) < least);
  const shown = marks.filter((mark) => !mark.classList.contains("weak")).length;
  byId("marks-shown").textContent = marks.length ? `${shown} of ${marks.length} shown` : "";
}

function applyChoices() {
  const views = document.querySelector(".views");
  if (!views) return;
  const layer = kept.get("layer", "view");
  const radio = document.querySelector(`input[name="layer"][value="${layer}"]:not(:disabled)`);
  if (radio) radio.checked = true;
  views.dataset.layer = radio ? layer : "view";
  const outlines = kept.get("outlines", "true") === "true";
  byId("outlines").checked = outlines;
  views.classList.toggle("no-outlines", !outlines);
  byId("threshold").value = kept.get("threshold", "0");
  applyThreshold();
}

document.addEventListener("input", (event) => {
  if (event.target.id === "threshold") { kept.set("threshold", event.target.value); applyThreshold(); }
  if (event.target.name === "layer") { kept.set("layer", event.target.value); applyChoices(); }
  if (event.target.id === "outlines") { kept.set("outlines", String(event.target.checked)); applyChoices(); }
});
document.body.addEventListener("htmx:afterSwap", applyChoices);
applyChoices();

// --- exam: one view, enlarged

const zoom = { scale: 1, x: 0, y: 0, fingers: new Map(), distance: 0 };

function place() {
  const content = byId("zoom-stage").firstElementChild;
  if (content) content.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
}

function fit() { zoom.scale = 1; zoom.x = 0; zoom.y = 0; place(); }

function scaleBy(factor, x, y) {
  const stage = byId("zoom-stage").getBoundingClientRect();
  const [cx, cy] = [(x ?? stage.left + stage.width / 2) - stage.left - stage.width / 2, (y ?? stage.top + stage.height / 2) - stage.top - stage.height / 2];
  const scale = Math.min(Math.max(zoom.scale * factor, 1), 16);
  const real = scale / zoom.scale;
  zoom.x = cx - (cx - zoom.x) * real;
  zoom.y = cy - (cy - zoom.y) * real;
  zoom.scale = scale;
  if (scale === 1) { zoom.x = 0; zoom.y = 0; }
  place();
}

document.addEventListener("click", (event) => {
  const picture = event.target.closest(".picture");
  const dialog = byId("zoom");
  if (picture && dialog) {
    const views = document.querySelector(".views");
    const copy = document.createElement("div");
    copy.className = `views zoomed ${views.classList.contains("no-outlines") ? "no-outlines" : ""}`;
    copy.dataset.layer = views.dataset.layer;
    for (const child of picture.children) copy.append(child.cloneNode(true));
    byId("zoom-title").textContent = picture.dataset.view;
    byId("zoom-stage").replaceChildren(copy);
    fit();
    dialog.showModal();
    byId("zoom-stage").focus();
  }
  const action = event.target.closest("[data-zoom]")?.dataset.zoom;
  if (action === "close") dialog.close();
  if (action === "fit") fit();
  if (action === "in") scaleBy(1.5);
  if (action === "out") scaleBy(1 / 1.5);
});

const stage = byId("zoom-stage");
if (stage) {
  stage.addEventListener("wheel", (event) => { event.preventDefault(); scaleBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX, event.clientY); }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.key in moves) { zoom.x += moves[event.key][0]; zoom.y += moves[event.key][1]; place(); event.preventDefault(); }
    if (event.key === "+") scaleBy(1.5);
    if (event.key === "-") scaleBy(1 / 1.5);
    if (event.key === "0") fit();
  });
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); zoom.fingers.set(event.pointerId, event); zoom.distance = 0; event.preventDefault(); });
  stage.addEventListener("pointermove", (event) => {
    const before = zoom.fingers.get(event.pointerId);
    if (!before) return;
    zoom.fingers.set(event.pointerId, event);
    const [one, other] = [...zoom.fingers.values()];
    if (!other) { zoom.x += event.clientX - before.clientX; zoom.y += event.clientY - before.clientY; place(); return; }
    const distance = Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    if (zoom.distance) scaleBy(distance / zoom.distance, (one.clientX + other.clientX) / 2, (one.clientY + other.clientY) / 2);
    zoom.distance = distance;
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => { zoom.fingers.delete(event.pointerId); zoom.distance = 0; });
}

// --- upload: each file is one request, so that no file is ever held in memory whole

const drop = byId("drop");
if (drop) {
  const counts = { of: 0, done: 0, failed: 0 };
  const waiting = [];
  const exams = new Set();
  const outcomes = {
    known: "is here already",
    own: "a result of this node: kept, not read",
    conflict: "kept aside: another image with this UID is here; mammonode conflicts",
    corrected: "in force: corrects whose image it is",
  };
  let running = 0;

  const summary = () => {
    const failed = counts.failed ? `, ${counts.failed} refused` : "";
    byId("upload-summary").textContent = counts.of ? `${counts.done} of ${counts.of} stored${failed}.` : "";
  };

  const showExam = (exam) => {
    if (!exam || exams.has(exam)) return;
    exams.add(exam);
    const link = document.createElement("a");
    link.href = `/exams/${exam}`;
    link.className = "button primary";
    link.textContent = `Exam ${exam.slice(0, 8)}`;
    byId("upload-exams").append(link, " ");
  };

  async function send({ file, line }) {
    const state = line.querySelector("span");
    state.textContent = "sending";
    try {
      const answer = await fetch("/upload", { method: "POST", body: file, headers: { "Content-Type": "application/dicom" } });
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.detail);
      state.textContent = outcomes[told.outcome] ?? told.outcome;
      line.className = told.outcome === "conflict" ? "bad" : "ok";
      counts.done += 1;
      showExam(told.exam);
    } catch (error) {
      fail(line, error);
    }
    summary();
  }

  function fail(line, error) {
    line.querySelector("span").textContent = error.message;
    line.className = "bad";
    counts.failed += 1;
  }

  async function work() {
    if (running >= 2) return;
    running += 1;
    while (waiting.length) await send(waiting.shift());
    running -= 1;
  }

  function show(named) {
    const line = document.createElement("li");
    const name = document.createElement("code");
    name.textContent = named;
    const state = document.createElement("span");
    state.textContent = "waiting";
    line.append(name, " ", state);
    byId("uploads").append(line);
    counts.of += 1;
    return line;
  }

  function add(file) {
    waiting.push({ file, line: show(file.name) });
    summary();
    work();
  }

  async function enter(entry) {
    try {
      if (entry.isFile) { add(await new Promise((resolve, reject) => entry.file(resolve, reject))); return; }
      const reader = entry.createReader();
      for (;;) {
        const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!entries.length) return;
        for (const each of entries) await enter(each);
      }
    } catch (error) { // this machine does not let it be read
      fail(show(entry.name), error);
      summary();
    }
  }

  // Who leaves the page takes what was not sent yet with them.
  addEventListener("beforeunload", (event) => { if (running) event.preventDefault(); });

  byId("files").addEventListener("change", (event) => { for (const file of event.target.files) add(file); event.target.value = ""; });
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (entries.length) for (const entry of entries) enter(entry);
    else for (const file of event.dataTransfer.files) add(file);
  });
}
