// The images of a visit, in the memory of this tab alone.

import { h, outcome, share } from "./dom.js";
import { verdict } from "./answers.js";

const STATES = { chosen: "not analyzed", waiting: "waiting", analyzing: "analyzing" };

/** How an image stands, in a word or two. */
export function standing(item) {
  if (item.state === "failed") return "no answer";
  return item.state === "done" ? verdict(item.answer).short : STATES[item.state];
}

// By the kind of a warning, as /v1/analyze names it.
const REASONS = { other_image: "not a chest X-ray", negative: "negative", turned: "turned", age: "age", synthetic_run: "synthetic runs", damaged: "damaged" };
const REFUSALS = { 413: "too large", 415: "unreadable", 422: "unreadable" };

/** Why an image has no answer, in a word or two: by its first warning, which is the image's own if one is. */
export function reason(item) {
  return REASONS[item.error ? item.error.kind : item.answer?.warning_kinds[0]] ?? REFUSALS[item.error?.status] ?? "";
}

/** The table's rows; `show` opens an image. */
export function table(visit, systems, current, show) {
  const decision = (item, place) => {
    const said = item.answer?.systems[place];
    if (!said) return h("td", { class: "figures" }, "–");
    return h("td", { class: "figures" }, `${outcome(said)} ${said.status === "ok" ? share(said.probability ?? said.score) : ""}`);
  };
  return [
    h("thead", {}, h("tr", {}, [["Image", ""], ["Outcome", ""], ...systems.map((each) => [each.system, "of-system"]), ["Note", "note"]]
      .map(([words, kind]) => h("th", { scope: "col", class: kind }, words)))),
    h("tbody", {}, visit.map((item) => h("tr", { "aria-current": item === current ? "true" : null, class: item.state === "done" ? verdict(item.answer).kind : item.state },
      h("th", { scope: "row" }, h("button", { type: "button", class: "link", onclick: () => show(item) }, item.name)),
      h("td", {}, h("span", { class: "tag" }, standing(item)), reason(item) ? h("p", { class: "quiet reason" }, reason(item)) : null),
      systems.map((_, place) => decision(item, place)),
      h("td", { class: "note" }, item.error ? item.error.message : item.answer?.warnings.join("; ") ?? "")))),
  ];
}

/** "5 images: 2 disagree, 1 without an answer". */
export function summary(visit) {
  const count = (test) => visit.filter(test).length;
  const unanswered = (item) => standing(item) === "no answer";
  const parts = [
    [count((item) => item.answer?.disagreement), "disagree"],
    [count((item) => item.answer?.warnings.length && !unanswered(item)), "with a warning"],
    [count(unanswered), "without an answer"],
    [count((item) => ["chosen", "waiting", "analyzing"].includes(item.state)), "not analyzed"],
  ].filter(([number]) => number).map(([number, words]) => `${number} ${words}`);
  return `${visit.length} ${visit.length === 1 ? "image" : "images"}${parts.length ? `: ${parts.join(", ")}` : ""}`;
}

/** The answers as one CSV table: that of each image, with the columns named once. */
export function csv(visit) {
  const tables = visit.filter((item) => item.answer).map((item) => item.answer.csv);
  const rows = (table) => table.slice(table.indexOf("\n") + 1);
  const text = tables[0] + tables.slice(1).map(rows).join("");
  return new Blob(["\ufeff", text], { type: "text/csv" });  // so that a spreadsheet reads it as UTF-8
}
