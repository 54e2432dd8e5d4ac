// Rates: what counters gained between two snapshots, and the last of them for a sparkline.
//
// An agent that starts again counts from 0. A counter that went back therefore ends all
// histories: a rate is a gain or it is unknown, and never negative.

const SAMPLES = 60;

class Histories {
  constructor() {
    this.forget();
  }

  /** Begins anew, as after a restart of the agent: the next sample only says where counters stand. */
  forget() {
    this.time = null;
    this.entries = new Map();
  }

  /**
   * Takes a snapshot in. `counters` gives `[key, count, row]` of everything that has a rate.
   * Returns whether counters went back, which a restart of the agent does.
   */
  add(time, counters) {
    const went = counters.some(([key, count]) => count < (this.entries.get(key)?.count ?? 0));
    if (went) this.forget();
    const elapsed = this.time === null ? null : time - this.time;
    if (elapsed !== null && elapsed <= 0) return went;
    const entries = new Map();
    for (const [key, count, row] of counters) {
      const known = this.entries.get(key);
      const entry = known ?? { rates: new Float64Array(SAMPLES).fill(Number.NaN), next: 0, rate: null, gains: null };
      // A subject that is new since the last snapshot began at 0 then.
      const gained = elapsed === null ? null : count - (known ? known.count : 0);
      entry.rate = gained === null ? null : gained / elapsed;
      entry.rates[entry.next] = entry.rate ?? Number.NaN;
      entry.next = (entry.next + 1) % SAMPLES;
      entry.count = count;
      entry.before = known?.row ?? null;
      entry.row = row;
      entries.set(key, entry);
    }
    this.elapsed = elapsed;
    this.time = time;
    this.entries = entries;
    return went;
  }

  /** Events per second, or `null`. */
  rate(key) {
    return this.entries.get(key)?.rate ?? null;
  }

  /** The last rates, oldest first, `NaN` where unknown. */
  samples(key) {
    const entry = this.entries.get(key);
    if (!entry) return [];
    return [...entry.rates.subarray(entry.next), ...entry.rates.subarray(0, entry.next)];
  }

  /** What `read` of a subject's row gained per second since the snapshot before; `null` if unknown. */
  gain(key, read) {
    const entry = this.entries.get(key);
    if (!entry?.row || !this.elapsed) return null;
    const gained = read(entry.row) - (entry.before ? read(entry.before) : 0);
    return gained < 0 ? null : gained / this.elapsed;
  }
}
