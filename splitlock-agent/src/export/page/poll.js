// Asking the agent: every 2 s, less often where an answer is large or slow, not at all while the
// tab is hidden or the reader paused.

const SHORTEST = 2;
const LONGEST = 30;
/** Longer than the agent lets itself take. */
const PATIENCE = 15;

class Poll {
  /** `show(snapshot)` draws, `tell({state, …})` says how it goes, `reset()` ends the histories. */
  constructor({ show, tell, reset }) {
    Object.assign(this, { show, tell, reset });
    this.isPaused = false;
    this.isAsking = false;
    this.timer = null;
    this.goneSince = null;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => this.resume());
  }

  setPaused(isPaused) {
    this.isPaused = isPaused;
    if (isPaused) {
      clearTimeout(this.timer);
      this.tell({ state: "paused" });
    } else {
      this.resume();
    }
  }

  /** Asks at once, unless nobody looks. */
  resume() {
    clearTimeout(this.timer);
    if (this.isPaused || document.hidden || this.isAsking) return;
    this.ask();
  }

  async ask() {
    this.isAsking = true;
    const began = performance.now();
    let next = SHORTEST;
    try {
      const [snapshot, size] = await getSnapshot();
      const wasGone = this.goneSince !== null;
      if (wasGone) this.reset();
      this.goneSince = null;
      this.failures = 0;
      this.show(snapshot);
      const took = (performance.now() - began) / 1000;
      next = Math.min(LONGEST, Math.max(SHORTEST, Math.round(Math.max(3 * took, (2 * size) / 1e6))));
      if (!this.isPaused) this.tell({ state: "live", taken: snapshot.taken_at, every: next, wasGone });
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      this.goneSince ??= Date.now() / 1000;
      this.failures += 1;
      next = Math.min(10, SHORTEST * this.failures);
      if (!this.isPaused) this.tell({ state: "gone", since: this.goneSince, why: error.message });
    } finally {
      this.isAsking = false;
      if (!this.isPaused && !document.hidden) this.timer = setTimeout(() => this.resume(), next * 1000);
    }
  }
}

/** Why there is no answer, in words. */
class Gone extends Error {}

/** A path's answer as text; `null` where there is no such thing. */
async function getText(path) {
  let answer, text;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE * 1000) });
    text = await answer.text();
  } catch (error) {
    throw new Gone(error.name === "TimeoutError" ? "it does not answer in time" : "it cannot be reached");
  }
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Gone(`it answered ${answer.status}, ${text.trim().slice(0, 200)}`);
  return text;
}

/** The snapshot, and the length of its text. */
async function getSnapshot() {
  const text = await getText("/api/v1/snapshot");
  try {
    return [JSON.parse(text ?? ""), text.length];
  } catch {
    throw new Gone("its answer is no snapshot");
  }
}
