// What the systems say, in words and bars: what speaks against the answers first, then whether they agree.

import { COLOURS } from "./draw.js";
import { counted, h, inside, listing, outcome, plain, policyWords, share, styled } from "./dom.js";

const SIGNS = { positive: "▲", negative: "○", undecided: "?", "no answer": "–", doubtful: "–" };
const VERBS = { positive: ["says positive for", "say positive for"], negative: ["says negative for", "say negative for"] };
const KINDS = { boxes: "Draws boxes around lesions", scores: "Classifies the whole image, then shows where", both: "Joins boxes around lesions with a score of the whole image" };
const MOST_FINDINGS = 6;

/** One line that says it all: `kind`, `title`, and a sentence for each system where they differ. */
export function verdict(answer) {
  const { systems } = answer;
  const finding = new Set(systems.map((each) => each.finding)).size === 1 ? inside(systems[0].finding) : null;
  if (systems.every((each) => each.status !== "ok")) {
    return { kind: "doubtful", title: "No answer for this image", lines: [], short: "no answer" };
  }
  const decisions = systems.map((each) => each.status === "ok" ? each.decision : null);
  const lines = systems.map((each) => `${each.system}: ${sentence(each)}`);
  if (answer.disagreement) return { kind: "disagree", title: "The systems disagree", lines, short: "disagree" };
  if (decisions.every((each) => each === null)) {
    return { kind: "undecided", title: systems.length > 1 ? "No system decides" : `${systems[0].system} does not decide`, lines, short: "undecided" };
  }
  if (decisions.includes(null) || finding === null) {
    return { kind: decisions.includes(null) ? "undecided" : "mixed", title: decisions.includes(null) ? "Not every system answers" : "The systems look for different findings", lines, short: decisions.includes(null) ? "undecided" : "" };
  }
  const who = systems.length === 1 ? systems[0].system : systems.length === 2 ? "Both systems" : `All ${systems.length} systems`;
  const said = new Set(systems.map(outcome)).size === 1 ? outcome(systems[0]) : decisions[0];
  return { kind: decisions[0], title: `${who} ${VERBS[said][systems.length === 1 ? 0 : 1]} ${finding}`, lines: [], short: said };
}

function sentence(each) {
  const at = each.probability === null ? "" : `, probability ${share(each.probability)}`;
  if (each.status !== "ok") return outcome(each);
  if (each.decision === null) return `${outcome(each)}${at}`;
  return `${each.decision} for ${inside(each.finding)}${at}`;
}

/** How often the systems that say negative missed a positive image, all of them together. */
function missedWords(count, missed) {
  const who = count === 1 ? "it" : count === 2 ? "both" : `all ${count}`;
  if (!missed) return `How often ${who} ${count === 1 ? "misses" : "miss"} a positive image is not known: cxr serve --report would say it.`;
  const { estimate, ci_low: low, ci_high: high } = missed.figures[0];
  const percent = (value) => (100 * value).toFixed(1);
  const where = [missed.images === "test" ? "test images" : "validation images", missed.data_set && `of ${missed.data_set}`].filter(Boolean).join(" ");
  return `${capital(who)} missed ${Math.round(estimate * missed.n_positive)} of ${missed.n_positive} positive ${where}: ${percent(estimate)} % (95 % interval ${percent(low)} to ${percent(high)} %). ${missed.cautions.join(" ")}`.trim();
}

/** What comes before the answers: warnings, then the verdict; `missed` as /v1/models has it. */
export function opening(answer, missed) {
  const { kind, title, lines } = verdict(answer);
  const warnings = answer.warnings.length ? h("div", { class: "warnings" },
    h("h2", {}, "Read this first"),
    h("ul", {}, answer.warnings.map((text) => h("li", {}, capital(text)))),
    h("p", {}, answer.systems.every((each) => each.status !== "ok") ? "No decision is given. The numbers are under “What it computed”."
      : "A system that gives no answer has its numbers under “What it computed”.")) : null;
  return [warnings, h("div", { class: `verdict ${kind}` },
    h("h2", { tabIndex: -1, id: "verdict" }, h("span", { class: "sign", "aria-hidden": "true" }, kind === "disagree" ? "≠" : SIGNS[kind] ?? ""), title),
    lines.length ? h("ul", {}, lines.map((line) => h("li", {}, line))) : null,
    kind === "disagree" ? h("p", {}, "At least one of them is wrong. Look at the image yourself.") : null,
    kind === "negative" ? h("p", {}, missedWords(answer.systems.length, missed)) : null),
  cautionList(answer.cautions),
  answer.notes.length ? h("p", { class: "quiet" }, `Note: ${answer.notes.join("; ")}.`) : null].filter(Boolean);
}

/** The same for a screen reader. */
export function spoken(answer, missed) {
  const { kind, title, lines } = verdict(answer);
  return [answer.warnings.length ? `${counted(answer.warnings.length, "warning")}: ${answer.warnings.join("; ")}.` : "", `${title}.`, ...lines, ...(answer.cautions ?? []).map((text) => `${capital(text)}.`),
    kind === "negative" ? missedWords(answer.systems.length, missed) : ""].join(" ");
}

/** What limits the answers without speaking against the image: that it trained a system, or that a system may guess. */
function cautionList(cautions = []) {
  return cautions.length ? h("ul", { class: "cautions" }, cautions.map((text) => h("li", {}, `${capital(text)}.`))) : null;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * The card of one system.
 * @param facts of the system, from /v1/models
 * @param lookAt shows a box on the image
 * @param howItDid opens its figures
 */
export function card(each, place, facts, lookAt, howItDid) {
  const decided = outcome(each);
  const computed = [bar(each), boxes(each, place, lookAt), scores(each)];
  return styled(h("article", { class: each.status === "ok" ? "card" : "card doubtful", "aria-label": each.system },
    h("header", {},
      h("h3", {}, h("span", { class: "key" }), each.system),
      h("p", { class: `decision ${decided.replace(" ", "-")}` }, h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[decided]), decided)),
    h("p", { class: "quiet" }, KINDS[each.kind], ` · ${inside(each.finding)}`),
    each.undecided_because ? h("p", { class: "because" }, `Why: ${each.undecided_because}`) : null,
    each.declared ? h("p", { class: "quiet" }, `${capital(each.declared)}.`) : null,
    each.status === "ok" ? computed : h("details", {}, h("summary", {}, "What it computed"), computed),
    facts ? h("p", { class: "quiet" }, `Learned from ${source(facts)}. `,
      h("button", { type: "button", class: "link", onclick: () => howItDid(each.system) }, "Its accuracy")) : null), { "--key": keyOf(place) });
}

/** What a system learned from. */
export const source = (facts) => `${listing(facts.trained_on) || "data it does not name"}${facts.synthetic ? ": synthetic drawings only, no real chest X-ray" : ""}`;

const keyOf = (place) => `var(--s${place % COLOURS.length})`;

/** The probability, with the threshold marked; the raw score where there is no probability. */
function bar(each) {
  const calibrated = each.probability !== null;
  const value = calibrated ? each.probability : each.score;
  const limit = calibrated ? each.threshold_probability : each.threshold;
  const name = calibrated ? `Probability of ${inside(each.finding)}` : "Score (not calibrated)";
  const rule = limit === null ? "no threshold" : `positive from ${share(limit)} (${policyWords(each.policy)})`;
  const track = h("div", { class: "track", role: "meter", "aria-label": name, "aria-valuemin": "0", "aria-valuemax": "1",
    "aria-valuenow": value.toFixed(3), "aria-valuetext": `${share(value)}, ${rule}` },
  h("span", { class: "fill" }), limit === null ? null : h("span", { class: "limit" }));
  return styled(h("div", { class: "probability" },
    h("p", { class: "row" }, h("span", {}, name), h("b", { class: "value" }, share(value))), track,
    h("p", { class: "quiet rule" }, capital(rule))), { "--value": String(value), "--limit": String(limit ?? 0) });
}

/** Scores before calibration, folded: beside a decision stands one number of certainty. */
function scores(each) {
  const parts = [findings(each), boxScores(each)].filter(Boolean);
  return parts.length ? h("details", { class: "scores" }, h("summary", {}, "Scores before calibration"), parts) : null;
}

function boxScores(each) {
  if (!each.boxes.length) return null;
  return h("p", { class: "quiet" }, `Boxes: ${each.boxes.map((box, number) => `${number + 1}. ${share(box.score)}`).join(", ")}`);
}

function findings(each) {
  const scored = Object.entries(each.findings).sort(([, one], [, other]) => other - one);
  if (!scored.length) return null;
  const rows = scored.map(([finding, score]) => styled(h("tr", {},
    h("th", { scope: "row" }, plain(finding)), h("td", { class: "rail" }, h("span", { class: "fill" })), h("td", { class: "figures" }, share(score))), { "--value": String(score) }));
  const table = (part, words) => h("table", { class: "findings" }, h("caption", {}, words), h("tbody", {}, part));
  const more = rows.slice(MOST_FINDINGS);
  return h("div", {}, table(rows.slice(0, MOST_FINDINGS), "Score by finding"),
    more.length ? h("details", {}, h("summary", {}, `${more.length} more`), table(more, "Lower scores")) : null);
}

function boxes(each, place, lookAt) {
  if (!each.boxes.length) return each.kind === "scores" ? null : h("p", { class: "quiet" }, "No boxes.");
  return h("div", { class: "boxes" }, h("p", {}, `${counted(each.boxes.length, "box", "boxes")}, highest score first. Look at`),
    h("ul", {}, each.boxes.map((box, number) => h("li", {}, h("button", { type: "button", class: "small", "aria-label": `Look at box ${number + 1}: ${plain(box.finding)}, score ${share(box.score)}, from ${Math.round(box.x1)}, ${Math.round(box.y1)} to ${Math.round(box.x2)}, ${Math.round(box.y2)} px`,
      onclick: () => lookAt(place, number) }, String(number + 1))))));
}

const FIRST = ["auroc", "average_precision", "recall", "specificity", "precision", "localised_sensitivity", "ece"];

const MEANINGS = {
  ece: "mean distance of the probabilities from the observed shares; 0 is best",
  localised_sensitivity: "positive images found with the point on a lesion",
};

/** The accuracy of the systems on their test sets, and what they learned from; `locked` where the report needs a token. */
export function systemsPage(systems, locked) {
  return systems.map((each, place) => styled(h("section", { id: `did-${each.system}`, tabIndex: -1 },
    h("h3", {}, h("span", { class: "key" }), each.system),
    h("p", {}, `Looks for ${inside(each.finding)}. Learned from ${source(each)}.`,
      each.guard ? "" : " It cannot tell what is no chest X-ray: look yourself."),
    cautionList(each.cautions),
    figures(each, locked),
    h("p", { class: "quiet" }, `Decides: ${each.threshold_probability === null ? "no probability" : `positive from probability ${share(each.threshold_probability)}`}, chosen on validation images for ${policyWords(each.policy)}. `,
      `Sees ${each.image_size} × ${each.image_size} px. ${each.backend}, ${each.precision}, model ${each.model_id}.`),
    each.undecided_because ? h("p", { class: "because" }, `It does not decide: ${each.undecided_because}`) : null), { "--key": keyOf(place) }));
}

function figures(each, locked) {
  const { report } = each;
  if (!report) return h("p", { class: "because" }, "No test figures here: start the server with the report of cxr compare to see them.");
  const rank = (one) => { const at = FIRST.indexOf(one.metric); return at < 0 ? FIRST.length : at; };
  const rows = [...report.figures].sort((one, other) => rank(one) - rank(other));
  const counts = [report.n_images && counted(report.n_images, "image"), report.n_patients && `of ${counted(report.n_patients, "patient")}`].filter(Boolean).join(" ");
  const where = [report.data_set, counts, report.n_positive !== null && `${report.n_positive} positive`].filter(Boolean).join(", ");
  return h("div", {},
    h("p", {}, report.images === "test" ? "On test images that it never saw: " : `On ${report.images} images, which chose its threshold, so these figures flatter: `, where, "."),
    report.cautions.length ? h("ul", { class: "because" }, report.cautions.map((text) => h("li", {}, text))) : null,
    h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": `Figures of ${each.system}` }, h("table", { class: "plain" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Figure"), h("th", { scope: "col" }, "Value"), h("th", { scope: "col" }, "95 % interval"))),
      h("tbody", {}, rows.map((one) => h("tr", {}, h("th", { scope: "row" }, one.title, one.policy ? h("small", {}, ` at ${policyWords(one.policy)}`) : null, MEANINGS[one.metric] ? h("small", {}, ` (${MEANINGS[one.metric]})`) : null),
        h("td", { class: "figures" }, one.estimate === null ? "–" : one.estimate.toFixed(3)),
        h("td", { class: "figures" }, one.ci_low === null || one.ci_high === null ? "–" : `${one.ci_low.toFixed(3)} to ${one.ci_high.toFixed(3)}`)))))),
    each.report_url ? h("p", {}, locked ? `The whole report is at ${each.report_url}, where the server asks for its token, which a link does not send.`
      : h("a", { href: each.report_url, target: "_blank", rel: "noopener" }, "Whole report")) : null);
}
