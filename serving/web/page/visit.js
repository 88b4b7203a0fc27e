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

// As the server writes text: an apostrophe keeps a spreadsheet from running a name as a formula.
function refusedRow(item, columns) {
  const cells = { image: item.name, status: "refused", problem: item.error.message };
  const inert = (text) => text.replace(/(^|[;,\t\r\n])(\s*)(?=[=+\-@])/g, "$1$2'");
  return columns.map((name) => (cells[name] ? `"${inert(cells[name]).replaceAll('"', '""')}"` : "")).join(",");
}

/** The answers as one CSV table, with the columns named once. A refused image has a row with its problem. */
export function csv(visit) {
  const [columns] = visit.find((item) => item.answer).answer.csv.split("\r\n");
  const rows = (table) => table.slice(columns.length + 2);
  const refused = visit.filter((item) => item.state === "failed");
  const text = [
    `${columns}\r\n`,
    ...visit.filter((item) => item.answer).map((item) => rows(item.answer.csv)),
    ...refused.map((item) => `${refusedRow(item, columns.split(","))}\r\n`),
  ].join("");
  return new Blob(["\ufeff", text], { type: "text/csv" });  // so that a spreadsheet reads it as UTF-8
}
