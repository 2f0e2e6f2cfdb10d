// What was drawn here, kept in this browser: the newest first, and no more than fits.

const PLACE = `dreambooth:history:${new URL(".", document.baseURI).pathname}`;
const MOST = 24; // entries
const MOST_CHARACTERS = 3_000_000; // browsers give a site some five million

/** The entries of earlier visits. */
export function recall() {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return []; // forbidden, or spoilt
  }
}

/** Keep `entries`, the oldest last, as far as there is room; returns those that are kept. */
export function keep(entries) {
  let kept = entries.slice(0, MOST);
  while (kept.length) {
    const text = JSON.stringify(kept);
    try {
      if (text.length <= MOST_CHARACTERS) {
        localStorage.setItem(PLACE, text);
        return kept;
      }
    } catch {
      // No room in the browser: with one less there may be.
    }
    if (kept.length === 1) break;
    kept = kept.slice(0, -1);
  }
  forget();
  return kept;
}

/** Keep nothing. */
export function forget() {
  try {
    localStorage.removeItem(PLACE);
  } catch {
    // Forbidden: then nothing was kept.
  }
}
