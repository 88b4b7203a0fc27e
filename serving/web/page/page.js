// The page: choose images, analyze them, show what each system says, and keep the visit in memory.

import { card, opening, source, spoken, systemsPage } from "./answers.js";
import * as client from "./client.js";
import { Refusal } from "./client.js";
import { $, bytes, counted, h, listing, save, say } from "./dom.js";
import { dropped, pasted, sorted } from "./files.js";
import { csv, summary, table } from "./visit.js";
import { Viewer } from "./viewer.js";

const AT_ONCE = 2;
const MOST_TRIES = 6;
const KEPT_PIXELS = 3;
const LOCAL = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);

const viewer = new Viewer($("viewer"));
let known = { systems: [], limits: { bytes: Infinity }, versions: {}, research_use: "Research use only, not a medical device." };
let visit = [];
let chosen = [];
let current = null;
let running = null;
let pixelsOf = new Map();
let failed = null;  // an image that the viewer could not show

// Choosing

function choose(files, left = 0) {
  if (running) {
    notice("Wait until the images are analyzed, or press Stop.");
    return;
  }
  notice(left ? `${counted(left, "file")} left out: by name no image.` : "");
  if (!files.length) {
    notice(left ? "No image among these files." : "No file came with this.");
    return;
  }
  visit = visit.filter((item) => item.state !== "chosen");
  chosen = files.map((file) => ({ file, name: file.webkitRelativePath || file.name || "pasted image", state: "chosen", answer: null, error: null }));
  for (const item of chosen) refuseLarge(item);
  visit.push(...chosen);
  show(chosen[0]);
  analyze(waiting());
}

function refuseLarge(item) {
  if (item.file.size <= known.limits.bytes) return;
  item.state = "failed";
  item.error = new Refusal(413, "too_large", `This file has ${bytes(item.file.size)}; the server takes up to ${bytes(known.limits.bytes)}.`);
}

/** Bring an image and what is known of it on screen. */
function show(item) {
  current = item;
  failed = null;
  viewer.show(null, item.name);
  loadPixels(item);
  render();
  scrollTo({ top: 0 });
}

async function loadPixels(item) {
  if (item.error) return;
  try {
    const image = await pixels(item);
    if (current !== item) return;
    viewer.show(image, item.name);
    if (item.answer) viewer.answer(item.answer.systems);
  } catch (error) {
    if (current !== item || item.error) return;
    if (error.status === 401) await askToken();
    failed = error;
    render();
  }
}

/** Pixels of an image; the last few stay in memory. */
async function pixels(item) {
  const kept = pixelsOf.get(item);
  const loading = kept ?? withPatience(() => client.pixels(item.file, shortName(item)));
  pixelsOf.delete(item);
  pixelsOf.set(item, loading);
  for (const [old] of pixelsOf) if (pixelsOf.size > KEPT_PIXELS) pixelsOf.delete(old);
  try {
    return await loading;
  } catch (error) {
    pixelsOf.delete(item);
    throw error;
  }
}

const shortName = (item) => item.file.name || "pasted image";

// Analyzing

async function analyze(items) {
  if (running || !items.length) return;
  running = new AbortController();
  for (const item of items) Object.assign(item, { state: "waiting", error: null });
  say(`Analyzing ${counted(items.length, "image")}.`);
  render();
  const queue = [...items];
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let item = queue.shift(); item; item = queue.shift()) await analyzeOne(item, running.signal);
  }));
  running = null;
  render();
  if (items.length > 1) say(`${summary(items)}.`);
  else if (items[0] === current && current.answer) {
    say(spoken(current.answer, known.missed_together));
    $("verdict")?.focus({ preventScroll: true });
  }
}

async function analyzeOne(item, signal) {
  if (signal.aborted) {
    item.state = "chosen";
    return;
  }
  item.state = "analyzing";
  render();
  try {
    item.answer = await withPatience(() => client.analyze(item.file, shortName(item), signal), signal, item);
    item.state = "done";
  } catch (error) {
    item.state = error.name === "AbortError" ? "chosen" : "failed";
    if (!(error instanceof Refusal) && error.name !== "AbortError") throw error;
    item.error = item.state === "failed" ? error : null;
  }
  item.waits = null;
  if (item === current && item.answer) {
    const image = await pixels(item).catch((error) => { failed = error; return null; });
    if (item === current && image) {
      viewer.answer(item.answer.systems);
      failed = null;
    }
  }
  render();
}

/** Wait as long as a busy server says, and ask for the token where it wants one. */
async function withPatience(action, signal = null, item = null) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await action();
    } catch (error) {
      if (error.status === 401 && await askToken()) continue;
      if (error.status !== 503 || tries === MOST_TRIES) throw error;
      const seconds = Math.min(error.retryAfter ?? 2 ** tries, 60);
      if (item) {
        item.waits = `${error.message.replace(/; try again\.$/, ".")} Trying again in ${counted(seconds, "second")}.`;
        render();
      }
      await pause(seconds * 1000, signal);
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, { once: true });
  });
}

// The token

let asking = null;

/** Ask for the token once for all that wait; whether there is one to try. */
function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = $("token");
    $("token-wrong").hidden = !sessionStorage.length;
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      resolve(dialog.returnValue === "given");
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  client.setToken($("token-field").value.trim());
  $("token-field").value = "";
  $("token").close("given");
});

// What is on screen

function render() {
  const reading = current !== null;
  $("start").hidden = reading;
  $("reading").hidden = !reading;
  $("visit").hidden = !visit.length;
  if (reading) renderReading();
  if (visit.length) renderVisit();
  document.title = reading ? `${current.name}: what each system says` : "Chest X-ray: what each system says";
}

function renderReading() {
  const place = visit.indexOf(current);
  $("reading-title").textContent = current.name;
  $("steps").hidden = visit.length < 2;
  $("place").textContent = `${place + 1} of ${visit.length}`;
  $("previous").disabled = place <= 0;
  $("next").disabled = place === visit.length - 1;
  const open = waiting();
  $("analyze").hidden = !running && !open.length;
  $("analyze").disabled = Boolean(running);
  $("analyze").textContent = running ? "Analyzing…" : open.length > 1 ? `Analyze ${open.length} Images` : "Analyze Image";
  $("stop").hidden = !running;
  $("save-answers").hidden = !visit.some((item) => item.answer);
  $("save-answers").disabled = Boolean(running);
  $("another").disabled = Boolean(running);
  $("another").classList.toggle("primary", !open.length && !running);
  renderProblem();
  renderAnswer();
}

/** What of the chosen images has no answer yet. */
function waiting() {
  const all = chosen.includes(current) ? chosen : [current];
  return all.filter((item) => item.state === "chosen");
}

let shownProblem = "";

function renderProblem() {
  const problem = current.error ?? (current.answer ? null : failed);
  const words = problem ? problem.message : current.waits ?? "";
  $("viewer").hidden = Boolean(problem) && viewer.isEmpty;
  if (words === shownProblem && $("problem").childElementCount === Number(Boolean(words))) return;
  shownProblem = words;
  const again = problem && (problem.passes || problem.status === 401)
    ? h("button", { type: "button", onclick: () => retry(current) }, "Try Again") : null;
  $("problem").replaceChildren(...(words ? [h("div", { class: problem ? "problem" : "waits" }, h("p", {}, words), again)] : []));
}

function retry(item) {
  const analyzed = item.state === "failed";
  Object.assign(item, { error: null, state: item.answer ? "done" : "chosen" });
  show(item);
  if (analyzed) analyze([item]);
}

let shownAnswer = null;

function renderAnswer() {
  const { answer } = current;
  $("reading").toggleAttribute("data-answered", Boolean(answer));
  if (answer === shownAnswer && answer) return;
  shownAnswer = answer;
  if (!answer) {
    const busy = ["waiting", "analyzing"].includes(current.state);
    $("said").replaceChildren();
    $("cards").replaceChildren(h("p", { class: "quiet" }, busy ? "Analyzing…" : current.error ? "No answer for this image." : `No answer yet: press ${$("analyze").textContent}.`));
    return;
  }
  const byName = new Map(known.systems.map((each) => [each.system, each]));
  $("said").replaceChildren(...opening(answer, known.missed_together));
  $("cards").replaceChildren(...answer.systems.map((each, place) => card(each, place, byName.get(each.system),
    (system, number) => { viewer.lookAt(system, number); document.querySelector("#viewer .stage").scrollIntoView({ block: "nearest" }); }, openSystems)), facts(answer));
}

function facts(answer) {
  const { image } = answer;
  const words = [`${image.width} × ${image.height} px`, `${image.format}, ${image.bits} bits`, image.view ? `view ${image.view}` : null,
    image.monochrome1 ? "stored as a negative, shown turned" : null].filter(Boolean);
  return h("p", { class: "quiet" }, `${words.join(" · ")}. Request ${answer.request_id}.`);
}

function renderVisit() {
  $("visit-count").textContent = summary(visit);
  $("visit-table").replaceChildren(...table(visit, known.systems, current, show));
  const done = visit.some((item) => item.answer);
  $("save-csv").disabled = !done || Boolean(running);
  $("clear").disabled = Boolean(running);
}

function notice(text) {
  $("notice").replaceChildren(...(text ? [h("p", { class: "problem" }, text)] : []));
}

function step(by) {
  const item = visit[visit.indexOf(current) + by];
  if (current && item) {
    show(item);
    say(`${item.name}. ${item.answer ? spoken(item.answer, known.missed_together) : item.error?.message ?? "Not analyzed."}`);
  }
}

function another() {
  if (running) return;
  visit = visit.filter((item) => item.state !== "chosen");
  [current, chosen, failed] = [null, [], null];
  viewer.show(null, "");
  notice("");
  render();
  $("choose-files").focus();
  say("Choose another image.");
}

// Saving the visit

const SAVING = ["save-answers", "save-csv"];  // beside the answer, and above the table of the visit
const stamp = () => new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-");

/** Save a table of the answers of this visit; images without an answer are left out. */
function saveVisit() {
  save(csv(visit), `cxr-visit-${stamp()}.csv`);
  say("CSV saved.");
}

// Dialogs, keys and the rest

function openSystems(system = null) {
  $("systems-body").replaceChildren(...systemsPage(known.systems, client.hasToken()));
  $("systems").showModal();
  if (system) $(`did-${system}`).focus();
}

const KEYS = [
  ["+ −", "Zoom"], ["0", "Whole image"], ["1", "One to one"], ["Arrows", "Move"], ["[ ]", "Contrast (window width)"], [", .", "Brightness (level)"],
  ["r", "Window as in the file"], ["i", "Invert"], ["s", "Side by side or overlaid"], ["h", "Hide marks"], ["b", "Boxes"], ["m", "Maps"],
  ["Enter", "Analyze Image"], ["a", "Analyze Another Image"], ["n p", "Next, previous image"], ["?", "This help"],
];

function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !$("keys-on").checked || document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  const onImage = target instanceof HTMLCanvasElement;
  if (!onImage && target !== document.body && target.closest("select, summary, input[type=password]")) return;
  if (key.startsWith("Arrow") && !onImage) return;  // elsewhere they scroll the page
  const lower = key.length === 1 ? key.toLowerCase() : key;
  const actions = { n: () => step(1), p: () => step(-1), a: () => current && another(), "?": () => $("help").showModal(),
    Enter: () => current && !$("analyze").hidden && !$("analyze").disabled && analyze(waiting()) };
  if (key === "Enter" && target.closest("button, input, a")) return;
  if (actions[lower]) actions[lower]();
  else if (!current || !viewer.key(lower)) return;
  event.preventDefault();
}

function listen() {
  const on = (id, action) => $(id).addEventListener("click", action);
  on("choose-files", () => $("files").click());
  on("choose-folder", () => $("folder").click());
  for (const [id, folder] of [["files", false], ["folder", true]]) {
    $(id).addEventListener("change", () => {
      const { files, left } = folder ? sorted([...$(id).files]) : { files: [...$(id).files], left: 0 };
      $(id).value = "";
      choose(files, left);
    });
  }
  on("analyze", () => analyze(waiting()));
  on("stop", () => running?.abort());
  on("another", another);
  on("previous", () => step(-1));
  on("next", () => step(1));
  for (const id of SAVING) on(id, saveVisit);
  on("print", () => print());
  on("clear", () => { visit = []; pixelsOf = new Map(); another(); });
  on("open-systems", () => openSystems());
  on("open-help", () => $("help").showModal());
  on("theme", toggleTheme);
  for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
  let closed = [];  // on paper nobody can open them
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll(".card details:not([open])")];
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of closed) details.open = false; });
  document.addEventListener("keydown", onKey);
  document.addEventListener("paste", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.type !== "checkbox") return;
    const files = pasted(event.clipboardData);
    if (files.length) choose(files);
    else notice("The clipboard holds no image.");
  });
  listenToDrops();
}

function listenToDrops() {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(depth + change, 0);
    document.body.toggleAttribute("data-dropping", depth > 0);
  };
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(-Infinity);
    const { files, left } = await dropped(event.dataTransfer);
    choose(files, left);
  });
}

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = null;  // the person's own choice, until the page is closed

function toggleTheme() {
  theme = isDark() ? "light" : "dark";
  showTheme();
}

const isDark = () => (theme ?? (dark.matches ? "dark" : "light")) === "dark";

function showTheme() {
  if (theme) document.documentElement.dataset.theme = theme;
  $("theme").textContent = isDark() ? "Light mode" : "Dark mode";  // what the button does
}

async function showExamples() {
  const found = await client.examples();
  const items = await Promise.all(found.map(async ({ name, url }) => {
    const blob = await client.blobOf(url);
    const image = h("img", { src: URL.createObjectURL(blob), alt: "" });
    const words = name.replace(/\.\w+$/, "").replace(/^synthetic[-_]/, "Synthetic: ").replaceAll(/[-_]/g, " ");
    const button = h("button", { type: "button", onclick: () => choose([new File([blob], name, { type: blob.type })]) }, image, h("span", {}, words));
    return h("li", {}, button);
  }));
  $("examples").replaceChildren(...items);
  $("examples-part").hidden = !items.length;
}

async function begin() {
  $("kept").textContent = LOCAL ? "They stay on this computer; nothing is kept." : `They are sent to ${location.host}, which keeps nothing.`;
  $("keys").replaceChildren(...KEYS.map(([keys, words]) => h("tr", {}, h("th", { scope: "row" }, keys.split(" ").map((key) => h("kbd", {}, key))), h("td", {}, words))));
  dark.addEventListener("change", showTheme);
  showTheme();
  listen();
  try {
    known = await withPatience(client.models);
    const names = known.systems.map((each) => each.system);
    $("start-title").textContent = `Show a chest X-ray to ${listing(names)}`;
    $("use").textContent = known.research_use;
    $("learned").textContent = known.systems.map((each) => `${each.system} learned from ${source(each)}.`).join(" ");
    $("versions").textContent = Object.entries(known.versions).map((each) => each.join(" ")).join(", ");
    await showExamples();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    notice(error.message);
    $("notice").append(h("button", { type: "button", onclick: () => location.reload() }, "Try Again"));
  }
}

begin();
