// Asking the bridge. One answer at a time: whoever asks again gives up the former question.

const PATIENCE_MS = 15_000;

/** The bridge answered, and not with what was asked for. */
export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

/**
 * The JSON document of a path below `api/`.
 * @param {string} path
 * @param {Record<string, string | number>} parameters empty ones are left out
 * @param {AbortSignal} signal gives up
 * @throws {Refused} for any other answer than 200; TypeError or DOMException when there is none
 */
export async function get(path, parameters, signal) {
  const answer = await fetch(url(path, parameters), {
    headers: { Accept: "application/json" },
    cache: "no-store",
    signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]),
  });
  if (!answer.ok) throw new Refused(answer.status, await problem(answer));
  return answer.json();
}

/** The address of a path below `api/`, relative to the page. */
export function url(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return `api/${path}${query.size ? `?${query}` : ""}`;
}

async function problem(answer) {
  if (answer.status === 401) return "it wants its token: load the page anew, and give the token as the password";
  try {
    return (await answer.json()).error ?? answer.statusText;
  } catch {
    return `it answered ${answer.status}`;
  }
}
