// The X-ray on screen: zoom, pan, window and level on the full bit depth, and what systems show.

import { CONTOURS, isCoarse, MAP_OPACITY, colourOf, develop, middle, paint } from "./draw.js";
import { $, h, outcome, share, styled } from "./dom.js";

const MOST_ZOOM = 16;
const NARROW = matchMedia("(max-width: 700px)");
const PRESETS = [["file", "As in the file"], ["middle", "Middle 98 %"], ["full", "Full range"]];

export class Viewer {
  #root;
  #image = null;
  #name = "";
  #window = { low: 0, high: 255, invert: false };
  #systems = [];
  #marks = [];
  #panes = [];
  #view = { zoom: 1, x: 0.5, y: 0.5 };  // zoom 1 shows all; x, y: what lies in the middle, share of the image
  #beside = !NARROW.matches;
  #hidden = false;
  #pointers = new Map();
  #drawing = 0;
  #stale = false;

  constructor(root) {
    this.#root = root;
    this.#build();
    new ResizeObserver(() => this.#draw()).observe(this.stage);
  }

  #build() {
    const button = (name, title, keys, action) => h("button", {
      type: "button", title, "aria-label": name.length === 1 ? title : null, "aria-keyshortcuts": keys, onclick: action }, name);
    this.stage = h("div", { class: "stage" });
    this.preset = h("select", { "aria-label": "Window preset", onchange: () => this.usePreset(this.preset.value) },
      PRESETS.map(([value, words]) => h("option", { value }, words)), h("option", { value: "own", hidden: true }, "By hand"));
    this.widthSlider = h("input", { type: "range", min: "0", max: "1000", step: "5", "aria-label": "Window width (contrast)", oninput: () => this.#fromSlider(true) });
    this.levelSlider = h("input", { type: "range", min: "0", max: "1000", step: "5", "aria-label": "Level (brightness)", oninput: () => this.#fromSlider(false) });
    this.windowWords = h("output", { class: "figures" });
    this.pointWords = h("span", { class: "figures quiet point" });
    this.invertButton = button("Invert", "Invert black and white", "i", () => this.invert());
    this.besideButton = button("Side by side", "Each system beside the other", "s", () => this.toggleBeside());
    this.hideButton = button("Hide marks", "Hide boxes and maps", "h", () => this.toggleHidden());
    this.layers = h("div", { class: "layers" });
    this.legend = $("legend");  // written by the server, with the marks of overlays and reports
    this.zoomWords = h("output", { class: "figures zoom" });
    this.#root.replaceChildren(
      h("div", { class: "tools", role: "group", "aria-label": "View" },
        button("−", "Zoom out", "-", () => this.zoom(1 / 1.25)), this.zoomWords, button("+", "Zoom in", "+", () => this.zoom(1.25)),
        button("Fit", "Show the whole image", "0", () => this.fit()),
        button("1:1", "One image pixel on one screen pixel", "1", () => this.actual()),
        this.invertButton, this.besideButton, this.hideButton),
      this.stage,
      h("div", { class: "tools window", role: "group", "aria-label": "Window and level" },
        h("label", { class: "slider" }, "Width ", this.widthSlider), h("label", { class: "slider" }, "Level ", this.levelSlider),
        this.preset, button("Reset", "Window and level as in the file", "r", () => this.usePreset("file")), this.windowWords, this.pointWords),
      this.layers, this.legend);
  }

  /** Show an image, or nothing while it comes. */
  show(image, name) {
    this.#image = image;
    this.#name = name;
    this.#view = { zoom: 1, x: 0.5, y: 0.5 };
    this.#window.invert = false;
    this.#systems = [];
    this.#marks = [];
    this.#layersAnew();
    this.#panesAnew();
    if (image) this.usePreset("file");
    this.#root.toggleAttribute("data-empty", !image);
  }

  get isEmpty() {
    return this.#image === null;
  }

  /** Show what systems say of the image. */
  answer(systems) {
    this.#systems = systems;
    this.#marks = systems.map((answer, place) => ({
      answer, colour: colourOf(place), boxes: 1, map: answer.map ? MAP_OPACITY : 0, shown: { boxes: answer.status === "ok", map: answer.status === "ok" }, chosen: null }));
    this.#hidden = false;
    this.#layersAnew();
    this.#panesAnew();
    this.#draw();
  }

  // Panes

  #panesAnew() {
    const beside = this.#beside && this.#systems.length > 1;
    const groups = beside ? this.#marks.map((mark) => [mark]) : [this.#marks];
    this.#panes = groups.map((marks) => this.#pane(marks, beside));
    this.stage.replaceChildren(...this.#panes.map((pane) => pane.node));
    this.stage.toggleAttribute("data-beside", beside);
    const several = this.#systems.length > 1;
    this.besideButton.hidden = !several;
    this.besideButton.setAttribute("aria-pressed", String(beside));
    this.hideButton.hidden = this.#systems.length === 0;
    this.hideButton.setAttribute("aria-pressed", String(this.#hidden));
    this.invertButton.setAttribute("aria-pressed", String(this.#window.invert));
  }

  #pane(marks, beside) {
    const words = marks.map(({ answer }) => `${answer.system} shows ${marksInWords(answer)}`).join("; ");
    const canvas = h("canvas", { tabIndex: 0, role: "img", "aria-label": `X-ray ${this.#name}. ${words}` });
    const caption = beside ? h("figcaption", {}, styled(h("span", { class: "key" }), { "--key": marks[0].colour }),
      `${marks[0].answer.system}: ${outcome(marks[0].answer)}`) : null;
    const node = h("figure", { class: "pane" }, caption, canvas);
    this.#listen(canvas);
    return { node, canvas, marks };
  }

  #layersAnew() {
    const row = (mark, kind, words) => {
      const label = `${mark.answer.system}: ${words}`;
      const slider = h("input", { type: "range", disabled: !mark.shown[kind], min: "5", max: "100", value: String(100 * mark[kind]), "aria-label": `${label}, opacity in percent`,
        oninput: () => { mark[kind] = slider.value / 100; this.#draw(); } });
      const box = h("input", { type: "checkbox", checked: mark.shown[kind], data: { kind }, onchange: () => {
        mark.shown[kind] = box.checked;
        slider.disabled = !box.checked;
        this.#draw();
      } });
      return h("div", { class: "layer" }, h("label", { class: "check" }, box, words), slider);
    };
    this.layers.replaceChildren(...this.#marks.map((mark) => h("fieldset", {},
      h("legend", {}, styled(h("span", { class: "key" }), { "--key": mark.colour }), mark.answer.system),
      mark.answer.boxes.length ? row(mark, "boxes", `Boxes (${mark.answer.boxes.length})`) : mark.answer.map ? null : h("p", { class: "quiet" }, "No boxes"),
      mark.answer.map ? row(mark, "map", mapWords(mark.answer.map)) : null)));
    const drawn = new Set(this.#marks.flatMap(({ answer }) => [answer.boxes.length ? "box" : "", markOfMap(answer.map)]));
    for (const item of this.legend.children) item.hidden = !drawn.has(item.dataset.mark);
    this.legend.hidden = [...this.legend.children].every((item) => item.hidden);
  }

  /** Look at one box of a system. */
  lookAt(system, number) {
    this.#marks.forEach((mark, place) => { mark.chosen = place === system ? number : null; });
    const box = this.#marks[system].answer.boxes[number];
    const { width, height } = this.#image;
    this.#view.x = (box.x1 + box.x2) / 2 / width;
    this.#view.y = (box.y1 + box.y2) / 2 / height;
    const part = Math.max((box.x2 - box.x1) / width, (box.y2 - box.y1) / height);
    this.#view.zoom = Math.min(Math.max(0.5 / part, 1), 4);
    this.#draw();
  }

  // Drawing

  #draw() {
    if (this.#drawing) return;
    this.#drawing = requestAnimationFrame(() => { this.#drawing = 0; this.#drawNow(); });
  }

  #drawNow() {
    if (!this.#image || !this.stage.clientWidth) return;
    if (this.#stale) {
      this.#image.canvas = develop(this.#image, this.#window, this.#image.canvas);
      this.#stale = false;
    }
    for (const pane of this.#panes) {
      const unit = devicePixelRatio || 1;
      const box = pane.canvas.getBoundingClientRect();
      const size = { width: Math.round(box.width * unit), height: Math.round(box.height * unit) };
      if (pane.canvas.width !== size.width || pane.canvas.height !== size.height) Object.assign(pane.canvas, size);
      const marks = this.#hidden ? [] : pane.marks.map((mark) => ({
        ...mark, boxes: mark.shown.boxes ? mark.boxes : 0, map: mark.shown.map ? mark.map : 0 }));
      paint(pane.canvas.getContext("2d"), size, this.#image, this.#place(size), marks, unit);
      pane.canvas.classList.toggle("zoomed", this.#view.zoom > 1);
    }
    this.zoomWords.textContent = `${Math.round(100 * this.#view.zoom)} %`;
  }

  #fitScale(size) {
    return Math.min(size.width / this.#image.width, size.height / this.#image.height);
  }

  #place(size) {
    const scale = this.#fitScale(size) * this.#view.zoom;
    const [wide, high] = [this.#image.width * scale, this.#image.height * scale];
    this.#view.x = kept(this.#view.x, size.width / wide);
    this.#view.y = kept(this.#view.y, size.height / high);
    return { scale, x: size.width / 2 - this.#view.x * wide, y: size.height / 2 - this.#view.y * high };
  }

  // Zoom and pan

  /** Zoom about a point, given in CSS pixels from the middle of a pane. */
  zoom(factor, across = 0, down = 0) {
    if (!this.#image) return;
    const scale = this.#fitScale(this.#paneSize()) * this.#view.zoom;
    const zoom = Math.min(Math.max(this.#view.zoom * factor, 1), Math.max(MOST_ZOOM, this.#actualZoom()));
    const moved = 1 / scale - 1 / (scale * zoom / this.#view.zoom);
    this.#view.x += across * moved / this.#image.width;
    this.#view.y += down * moved / this.#image.height;
    this.#view.zoom = zoom;
    this.#draw();
  }

  #paneSize() {
    const box = this.#panes[0].canvas.getBoundingClientRect();
    return { width: box.width, height: box.height };
  }

  #actualZoom() {
    return 1 / (devicePixelRatio || 1) / this.#fitScale(this.#paneSize());
  }

  fit() {
    this.#view = { zoom: 1, x: 0.5, y: 0.5 };
    this.#draw();
  }

  actual() {
    if (!this.#image) return;
    this.#view.zoom = Math.max(this.#actualZoom(), 1);
    this.#draw();
  }

  /** Move what is shown, in CSS pixels. */
  pan(across, down) {
    if (!this.#image) return;
    const scale = this.#fitScale(this.#paneSize()) * this.#view.zoom;
    this.#view.x -= across / scale / this.#image.width;
    this.#view.y -= down / scale / this.#image.height;
    this.#draw();
  }

  // Window and level

  get window() {
    return { ...this.#window };
  }

  usePreset(name) {
    if (!this.#image) return;
    const { low, high, lowest, highest } = this.#image;
    const ends = { file: () => ({ low, high }), full: () => ({ low: lowest, high: Math.max(highest, lowest + 1) }),
      middle: () => middle(this.#image, 0.98) }[name]();
    this.#useWindow(ends.low, ends.high, name);
  }

  /** Change contrast and brightness by shares of the image's range. */
  adjust(wider, higher) {
    if (!this.#image) return;
    const { low, high } = this.#window;
    const range = this.#range();
    const width = Math.min(Math.max(high - low + wider * range, range / 500), 2 * range);
    const level = Math.min(Math.max((low + high) / 2 + higher * range, this.#image.lowest), this.#image.highest);
    this.#useWindow(level - width / 2, level + width / 2, "own");
  }

  invert() {
    if (!this.#image) return;
    this.#window.invert = !this.#window.invert;
    this.invertButton.setAttribute("aria-pressed", String(this.#window.invert));
    this.#stale = true;
    this.#draw();
  }

  #range() {
    return Math.max(this.#image.highest - this.#image.lowest, 1);
  }

  #useWindow(low, high, preset) {
    Object.assign(this.#window, { low, high });
    const [range, lowest] = [this.#range(), this.#image.lowest];
    this.widthSlider.value = String(1000 * Math.min((high - low) / range / 2, 1));
    this.levelSlider.value = String(1000 * ((low + high) / 2 - lowest) / range);
    this.preset.value = preset;
    const [width, level] = [Math.round(high - low), Math.round((low + high) / 2)];
    this.windowWords.textContent = `W ${width} L ${level}, ${this.#image.bits} bits`;
    this.widthSlider.setAttribute("aria-valuetext", String(width));
    this.levelSlider.setAttribute("aria-valuetext", String(level));
    this.#stale = true;
    this.#draw();
  }

  #fromSlider(ofWidth) {
    if (!this.#image) return;
    let [width, level] = [this.#window.high - this.#window.low, (this.#window.high + this.#window.low) / 2];
    if (ofWidth) width = Math.max(2 * this.widthSlider.value / 1000, 0.002) * this.#range();
    else level = this.#image.lowest + this.levelSlider.value / 1000 * this.#range();
    this.#useWindow(level - width / 2, level + width / 2, "own");
  }

  // Marks

  toggleBeside() {
    if (this.#systems.length < 2) return;
    this.#beside = !this.#beside;
    this.#panesAnew();
    this.#draw();
  }

  toggleHidden() {
    if (!this.#systems.length) return;
    this.#hidden = !this.#hidden;
    this.hideButton.setAttribute("aria-pressed", String(this.#hidden));
    this.#draw();
  }

  /** Turn a kind of mark on or off for all systems. */
  toggleMarks(kind) {
    const boxes = [...this.layers.querySelectorAll(`[data-kind="${kind}"]`)];
    const on = !boxes.some((box) => box.checked);
    for (const box of boxes) if (box.checked !== on) box.click();
  }

  // Pointers

  #listen(canvas) {
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...fromMiddle(canvas, event));
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => {
      if (this.#view.zoom > 1) this.fit();
      else this.zoom(2.5, ...fromMiddle(canvas, event));
    });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, sets: event.button === 2 || event.shiftKey });
    });
    canvas.addEventListener("pointermove", (event) => this.#move(canvas, event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => { this.pointWords.textContent = ""; });
  }

  #move(canvas, event) {
    this.#readOut(canvas, event);
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const [across, down] = [event.clientX - before.x, event.clientY - before.y];
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, each]) => each);
    if (others.length) {
      const far = (point) => Math.hypot(point.x - others[0].x, point.y - others[0].y);
      const factor = far({ x: event.clientX, y: event.clientY }) / Math.max(far(before), 1);
      this.zoom(factor, ...fromMiddle(canvas, { clientX: (event.clientX + others[0].x) / 2, clientY: (event.clientY + others[0].y) / 2 }));
    } else if (before.sets) this.adjust(across / 500, -down / 700);
    else this.pan(across, down);
    Object.assign(before, { x: event.clientX, y: event.clientY });
  }

  #readOut(canvas, event) {
    if (!this.#image || event.pointerType === "touch") return;
    const box = canvas.getBoundingClientRect();
    const place = this.#place({ width: box.width, height: box.height });
    const x = Math.floor((event.clientX - box.left - place.x) / place.scale);
    const y = Math.floor((event.clientY - box.top - place.y) / place.scale);
    const { width, height, values } = this.#image;
    const on = x >= 0 && y >= 0 && x < width && y < height;
    this.pointWords.textContent = on ? `x ${x}, y ${y}: ${values[y * width + x]}` : "";
  }

  /** Keys of the viewer; whether one was its own. */
  key(key) {
    const step = 40;
    const actions = {
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(1 / 1.25),
      0: () => this.fit(), 1: () => this.actual(),
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
      "[": () => this.adjust(-0.04, 0), "]": () => this.adjust(0.04, 0), ",": () => this.adjust(0, 0.02), ".": () => this.adjust(0, -0.02),
      r: () => this.usePreset("file"), i: () => this.invert(), s: () => this.toggleBeside(),
      h: () => this.toggleHidden(), b: () => this.toggleMarks("boxes"), m: () => this.toggleMarks("map"),
    };
    const action = actions[key];
    if (!action || !this.#image) return false;
    action();
    return true;
  }
}

const fromMiddle = (canvas, event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
};

/** Keep a middle such that the image fills the pane; `part`: how much of the image the pane shows. */
const kept = (middleAt, part) => (part >= 1 ? 0.5 : Math.min(Math.max(middleAt, part / 2), 1 - part / 2));

const isFaint = (map) => !map.values.flat().some((value) => value >= CONTOURS[0]);
const mapWords = (map) => isFaint(map) ? "Map (faint)" : "Map";
const markOfMap = (map) => !map || isFaint(map) ? "" : isCoarse(map) ? "cell" : "contours";

function marksInWords(answer) {
  if (answer.status !== "ok") return "no answer";
  const boxes = answer.boxes.map((box) => share(box.score));
  const words = boxes.length ? `${boxes.length === 1 ? "a box" : `${boxes.length} boxes`} with score ${boxes.join(", ")}` : "no boxes";
  return answer.map ? `${words} and a map` : words;
}
