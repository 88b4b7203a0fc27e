// Talking to the server. A token lies in sessionStorage and nowhere else.

const KEY = "cxr-token";

/** Why there is no answer: a status (0 where the server is gone), and words that say what to do. */
export class Refusal extends Error {
  constructor(status, code, message, { retryAfter = null, kind = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter, kind });
  }

  /** Whether the same request may work a little later. */
  get passes() {
    return [0, 503].includes(this.status);
  }
}

export const setToken = (token) => sessionStorage.setItem(KEY, token);

async function request(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "gone", "The server does not answer. Check that cxr serve still runs, then try again.");
  }
  if (response.ok) return response;
  const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    error = {};  // a proxy's page, not the server's words
  }
  throw new Refusal(response.status, error.code ?? "refused", wording(error.code === "doubtful" ? "doubtful" : response.status, error.message),
    { retryAfter: Number.isFinite(after) ? after : null, kind: error.kind });
}

const OPENINGS = {
  401: "The server asks for its token",
  403: "The server does not answer this page",
  413: "The image is too large",
  415: "This type of file is not read",
  422: "This file cannot be read as an X-ray",
  doubtful: "This server gives no answer where a warning speaks against it",
  503: "The server is not ready",
};

function wording(status, message) {
  const opening = OPENINGS[status] ?? `The server refused this (${status})`;
  const text = (message ?? "").trim().replace(/\.$/, "");
  return text && text.toLowerCase() !== opening.toLowerCase() ? `${opening}: ${text}.` : `${opening}.`;
}

function form(file, name) {
  const body = new FormData();
  body.append("file", file, name);
  return body;
}

export const models = async () => (await request("/v1/models")).json();

export const examples = async () => (await (await request("/examples")).json()).examples;

export const blobOf = async (url) => (await request(url)).blob();

export async function analyze(file, name, signal) {
  const options = { method: "POST", body: form(file, name), signal };
  return (await request("/v1/analyze?include=maps,csv", options)).json();
}

/** Whether this tab sends a token, which a link would not. */
export const hasToken = () => sessionStorage.getItem(KEY) !== null;

/** The image before any window: `values` (uint16 rows), and what the file shows as black and white. */
export async function pixels(file, name, signal) {
  const response = await request("/v1/pixels", { method: "POST", body: form(file, name), signal });
  const number = (header) => Number(response.headers.get(header));
  const values = new Uint16Array(await response.arrayBuffer());
  const [width, height] = [number("X-Width"), number("X-Height")];
  if (values.length !== width * height || !values.length) {
    throw new Refusal(422, "pixels", "The server sent an incomplete image; try again.");
  }
  let [lowest, highest] = [65535, 0];
  for (const value of values) {
    if (value < lowest) lowest = value;
    if (value > highest) highest = value;
  }
  return { values, width, height, low: number("X-Low"), high: number("X-High"), bits: number("X-Bits"), lowest, highest };
}
