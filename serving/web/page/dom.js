// Building elements, and words for figures.

export const $ = (id) => document.getElementById(id);

/** An element: attributes by name, `on*` as listeners, `data` as dataset; children as nodes or text. */
export function h(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key in node && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set CSS variables: the content policy allows no style attributes. */
export function styled(node, variables) {
  for (const [name, value] of Object.entries(variables)) node.style.setProperty(name, value);
  return node;
}

/** Tell a screen reader. */
export function say(text) {
  $("live").textContent = "";
  setTimeout(() => { $("live").textContent = text; }, 60);
}

export const plain = (name) => name.replaceAll("_", " ");

/** A finding's name inside a sentence; an abbreviation stays as it is. */
export function inside(name) {
  const words = plain(name);
  return /^.[A-Z]/.test(words) ? words : words.charAt(0).toLowerCase() + words.slice(1);
}

export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** What a system's answer comes to: one that a warning speaks against is none. */
export const outcome = (each) => each.status !== "ok" ? "no answer" : each.decision ?? "undecided";

export function listing(words) {
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words.join("");
}

/** A probability or score: two decimals, more where it is small, never a false 0 or 1. */
export function share(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.01) return value < 0.001 ? "<0.001" : value.toFixed(3);
  if (value < 1 && value > 0.99) return value > 0.999 ? ">0.999" : value.toFixed(3);
  return value.toFixed(2);
}

export function bytes(count) {
  return count < 1 << 20 ? `${Math.ceil(count / 1024)} KiB` : `${+(count / (1 << 20)).toFixed(1)} MiB`;
}

const POLICIES = { max_f1: "best F1", youden: "best sensitivity + specificity" };

export function policyWords(policy) {
  const cost = /^cost:([\d.]+)\/([\d.]+)/.exec(policy);
  if (cost) return `least cost, a miss to a false alarm as ${cost[1]} to ${cost[2]}`;
  return POLICIES[policy] ?? plain(policy.replace(">=", " ≥ "));
}

/** Give a file to the person. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
