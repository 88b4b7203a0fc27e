// The page of cxr serve: one image at a time, what each system says of it, and where it looked.

const $ = (id) => document.getElementById(id);
const SIDE_BY_SIDE = 3; // systems; of more, one is drawn at a time
const MEBIBYTE = 2 ** 20;
const ENDING = /\.(dcm|dicom|png|jpe?g|tiff?)$/i; // of a UID, no part is one
let token = sessionStorage.getItem("cxr-token");
let known = { systems: [], limits: { bytes: Infinity } };
let chosen = null; // file
let number = 0; // of the analysis that is shown: an earlier one that ends late is dropped
let urls = [];
let marking = []; // systems that mark something, which have a panel beside the image

class Refused extends Error {}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function list(id, texts) {
  $(id).replaceChildren(...[...new Set(texts)].map((text) => element("li", text)));
  $(id).hidden = !texts.length;
}

function complain(text) {
  $("problem").replaceChildren(element("p", text, { class: "problem" }));
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused("The server does not answer. Is it still running?");
  }
  if (response.status === 401) {
    token = await askToken(token);
    sessionStorage.setItem("cxr-token", token);
    return ask(path, options);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Refused(typeof body.detail === "string" ? body.detail : `status ${response.status}`);
  }
  return response;
}

function askToken(before) {
  const dialog = $("token");
  $("token-wrong").hidden = !before;
  $("token-field").value = "";
  dialog.returnValue = "";
  return new Promise((resolve, reject) => {
    const closed = () => {
      if (dialog.returnValue === "given") resolve($("token-field").value.trim());
      else reject(new Refused("This server asks for its token. Load the page again to give it."));
    };
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
  });
}

function sendFile(path, file) {
  const body = new FormData();
  body.append("file", file, file.name || "image");
  return ask(path, { method: "POST", body });
}

function show(section) {
  $("start").hidden = section !== "start";
  $("result").hidden = section !== "result";
  $("limits").classList.toggle("unseen", section === "result"); // its answers say them
  $("problem").replaceChildren();
}

function kept(blob) {
  const url = URL.createObjectURL(blob);
  urls.push(url);
  return url;
}

function choose(files) {
  const [file] = files;
  if (!file) return;
  clear();
  if (file.size > known.limits.bytes) {
    const most = (known.limits.bytes / MEBIBYTE).toFixed(0);
    complain(`${file.name}: larger than the limit of ${most} MiB.`);
    return;
  }
  if (files.length > 1) complain(`One image at a time: ${file.name} is the first of these.`);
  chosen = file;
  $("chosen").textContent = `${file.name || "image"}, ${(file.size / MEBIBYTE).toFixed(2)} MiB`;
  $("preview").hidden = !["image/png", "image/jpeg"].includes(file.type);
  if (!$("preview").hidden) $("preview").src = kept(file);
  $("analyze").hidden = false;
  $("choose").textContent = "Choose another";
  $("choose").classList.remove("primary");
  $("analyze").focus();
}

function clear() {
  number += 1;
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  chosen = null;
  show("start");
  $("file").value = "";
  $("chosen").textContent = "Drop an image here, or paste one";
  $("preview").hidden = $("analyze").hidden = true;
  $("preview").removeAttribute("src");
  $("choose").textContent = "Choose an image";
  $("choose").classList.add("primary");
  $("choose").focus();
}

async function analyze() {
  const file = chosen;
  const mine = ++number;
  show("result");
  $("result-title").textContent = file.name || "image";
  $("verdict").replaceChildren(element("p", "Analysing…"));
  $("verdict").className = "verdict";
  list("cautions", []);
  list("notes", []);
  $("answers").replaceChildren();
  $("figure").hidden = true;
  $("result-title").focus();
  try {
    const answers = await (await sendFile("/v1/analyze", file)).json();
    if (mine !== number) return;
    const json = new Blob([JSON.stringify(answers, null, 2)], { type: "application/json" });
    $("save-json").href = kept(json);
    showAnswers(answers);
    await draw(file, answers.length > SIDE_BY_SIDE ? worst(answers).system : null);
  } catch (error) {
    if (mine !== number) return;
    clear();
    const text = error instanceof Refused ? error.message : `something went wrong (${error})`;
    complain(`${file.name}: not analysed: ${text}`);
  }
}

async function draw(file, system) {
  const mine = number;
  const query = system === null ? "" : `?system=${encodeURIComponent(system)}`;
  const picture = await (await sendFile(`/v1/overlay${query}`, file)).blob();
  const pressed = document.querySelector("[name=system]:checked");
  if (mine !== number || (pressed && pressed.value !== system)) return;
  const whose = system ?? "each system";
  const url = kept(picture);
  $("overlay").src = url;
  const isMarked = marking.some((name) => system === null || name === system);
  const beside = isMarked ? `and beside it what ${whose} marks` : `on which ${whose} marks nothing`;
  $("overlay").alt = `${file.name}: the image, ${beside}`;
  $("save-overlay").href = url;
  $("save-overlay").download = `${file.name.replace(ENDING, "")}-overlay.png`;
  $("figure").hidden = false;
}

function marks(answer) {
  return !answer.warnings.length && answer.decision !== "negative";
}

function worst(answers) {
  return answers.find((answer) => answer.decision === "positive") ?? answers[0];
}

function showAnswers(answers) {
  const decided = answers.filter((answer) => answer.decision);
  const open = answers.filter((answer) => !answer.decision);
  const reasons = open.flatMap((answer) =>
    answer.warnings.length ? answer.warnings : [`${answer.system}: ${answer.undecided_because}`],
  );
  const doubted = answers.some((answer) => answer.warnings.length);
  marking = answers.filter(marks).map(({ system }) => system);
  const other = answers.some((answer) => answer.no_chest_xray);
  const unanswered = other ? "No answer: not a chest X-ray" : "No answer for this image";
  const none = doubted ? unanswered : "No decision on this image";
  const sentences = decided.length ? spoken(decided, answers.length) : [none];
  const made = sentences.map((text) => element("p", text));
  const why = element("ul");
  why.append(...[...new Set(reasons)].map((text) => element("li", text)));
  $("verdict").replaceChildren(...made, ...(reasons.length ? [why] : []));
  const called = new Set(decided.map((answer) => answer.decision));
  $("verdict").className = `verdict ${called.size === 1 ? [...called][0] : "doubtful"}`;
  list("cautions", answers.flatMap((answer) => answer.cautions));
  list("notes", answers.flatMap((answer) => answer.notes));
  const cards = element("div", undefined, { class: "cards" });
  cards.append(...answers.map(card));
  $("answers").replaceChildren(answers.length > SIDE_BY_SIDE ? table(answers) : cards);
}

function spoken(decided, total) {
  return [...new Set(decided.map(subject))].map((finding) => {
    const of = decided.filter((answer) => subject(answer) === finding);
    const positive = of.filter((answer) => answer.decision === "positive").length;
    if (positive && positive < of.length) {
      return `${finding}: the systems disagree, ${positive} of ${of.length} positive`;
    }
    const names = of.map((answer) => answer.system).join(", ");
    const who = of.length > SIDE_BY_SIDE ? `${of.length} of ${total} systems` : names;
    if (of.every(isOfClasses)) return `${finding} (${who})`;
    return `${finding}: ${of[0].decision.toUpperCase()} (${who})`;
  });
}

const called = (answer) =>
  answer.warnings.length ? "no answer" : answer.decision || "undecided";

const isOfClasses = (answer) => Object.keys(answer.classes).length > 0;

function ranked(answer) {
  return Object.entries(answer.classes).sort(([, one], [, other]) => other - one);
}

const subject = (answer) => (isOfClasses(answer) ? ranked(answer)[0][0] : answer.finding);

function decision(name, answer) {
  const text = called(answer);
  const shown = isOfClasses(answer) ? subject(answer) : text;
  return element(name, shown, { class: `decision ${text.replace(" ", "-")}` });
}

function bar(value) {
  const track = element("div", undefined, { class: "track", "aria-hidden": "true" });
  track.append(element("span", undefined, { class: "fill" }));
  track.firstChild.style.setProperty("--value", value);
  return track;
}

function figures(answer) {
  const calibrated = answer.probability !== null;
  return {
    what: calibrated ? "Probability" : "Score",
    value: isOfClasses(answer) ? ranked(answer)[0][1] : answer.probability ?? answer.score,
    limit: calibrated ? answer.threshold_probability : answer.threshold,
  };
}

function card(answer, position) {
  const made = element("article", undefined, { class: "card" });
  made.style.setProperty("--key", known.systems[position].colour);
  const name = element("h2", answer.system);
  name.prepend(element("span", undefined, { class: "key" }));
  name.firstChild.style.clipPath = known.systems[position].symbol;
  made.append(name, decision("p", answer));
  if (answer.warnings.length) return made; // the answer is withheld
  const { what, value, limit } = figures(answer);
  const track = bar(value);
  if (limit !== null) {
    track.append(element("span", undefined, { class: "limit" }));
    track.lastChild.style.setProperty("--limit", limit);
  }
  const from = limit === null ? "" : `, positive from ${limit.toFixed(2)} on`;
  const scores = Object.entries(answer.classes).flatMap(([each, score]) => [
    element("p", `${each} ${score.toFixed(2)}`),
    bar(score),
  ]);
  const one = [element("p", `${what} ${value.toFixed(2)}${from}`), track];
  made.append(...(scores.length ? scores : one));
  const boxes = answer.boxes.length;
  if (answer.decision === "positive") {
    const counted = `${boxes} ${boxes === 1 ? "box" : "boxes"}`;
    const map = scores.length ? `heat map of ${subject(answer)}` : "heat map";
    made.append(element("p", `${answer.kind === "scores" ? map : counted}, see the picture`));
  }
  return made;
}

function numbersOf(answer) {
  const { value, limit } = figures(answer);
  const boxes = answer.kind === "boxes" ? answer.boxes.length : "";
  return [value.toFixed(2), limit?.toFixed(2) ?? "none", boxes];
}

function table(answers) {
  const made = element("table");
  const body = made.createTBody();
  const titles = ["Picture of", "Answer", "Probability or score", "Positive from", "Boxes"];
  made.createTHead().insertRow().append(...titles.map((title) => element("th", title, { scope: "col" })));
  for (const answer of answers) {
    const choice = element("input", undefined, { type: "radio", name: "system" });
    choice.value = answer.system;
    choice.checked = answer === worst(answers);
    choice.addEventListener("change", () =>
      draw(chosen, answer.system).catch((error) => complain(error.message)),
    );
    const label = element("label");
    label.append(choice, ` ${answer.system}`);
    const name = element("th", undefined, { scope: "row" });
    name.append(label);
    const numbers = answer.warnings.length ? ["", "", ""] : numbersOf(answer);
    body.insertRow().append(name, decision("td", answer), ...numbers.map((n) => element("td", n)));
  }
  const scroll = { class: "scroll", tabindex: "0", role: "region", "aria-label": "Answers" };
  const region = element("div", undefined, scroll);
  region.append(made);
  return region;
}

async function showSystems() {
  known = await (await ask("/v1/models")).json();
  const { systems } = known;
  $("rows").replaceChildren(...systems.map(row));
  list("limits", systems.flatMap((system) => system.cautions));
  $("systems").hidden = false;
}

function row(system) {
  const made = element("tr");
  const name = element("th", undefined, { scope: "row" });
  if (known.systems.length <= SIDE_BY_SIDE) {
    name.append(element("span", undefined, { class: "key" }));
    name.style.setProperty("--key", system.colour);
    name.firstChild.style.clipPath = system.symbol;
  }
  name.append(`${system.name} (${system.finding})`);
  const ends = [system.ci_low, system.ci_high].map((end) => end?.toFixed(2)).join(" to ");
  const interval = system.ci_low === null ? "no interval" : ends;
  const auroc = system.validation_auroc;
  const figure = auroc === null ? "not known" : `${auroc.toFixed(2)} (${interval})`;
  const { threshold, threshold_probability: probability } = system;
  const limit = probability === null ? `score ${threshold?.toPrecision(3)}` : `probability ${probability.toFixed(2)}`;
  const without = system.policy ? "none" : "the highest class is called";
  const at = threshold === null ? without : `${limit}, ${system.policy_text}`;
  const drawn = system.synthetic ? "synthetic " : "";
  const count = `${system.n_train.toLocaleString("en")} ${drawn}images`;
  const origin = `${system.trained_on.join(", ") || "a data set without a name"}, ${count}`;
  made.append(name, ...[figure, at, origin].map((text) => element("td", text)));
  return made;
}

async function example(name) {
  const blob = await (await ask(`/page/examples/${name}`)).blob();
  choose([new File([blob], name, { type: blob.type })]);
}

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => choose([...$("file").files]));
$("analyze").addEventListener("click", analyze);
$("another").addEventListener("click", clear);
$("examples").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) example(button.dataset.example).catch((error) => complain(error.message));
});
document.addEventListener("paste", (event) => choose([...event.clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.dataset.dropping = "";
});
document.addEventListener("dragleave", () => delete document.body.dataset.dropping);
document.addEventListener("drop", (event) => {
  event.preventDefault();
  delete document.body.dataset.dropping;
  choose([...event.dataTransfer.files]);
});
showSystems().catch((error) => complain(error.message));
