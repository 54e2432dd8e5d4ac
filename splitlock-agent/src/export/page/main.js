// The page: one snapshot after the other goes to all parts.

const subjects = new Histories();
const hostHistories = new Histories();
const totalHistories = new Histories();

function keyOf(kind, row) {
  return `${kind}-${row.pid}-${row.start_ticks}`;
}

function subjectTable(section, options) {
  return new SubjectTable(section, { sorted: "rate", words: wordsOf, detail: (place) => new Detail(place, subjects), ...options });
}

const vmTable = subjectTable(at("vms"), {
  noun: "VM", nouns: "VMs", caption: "Virtual machines", columns: vmColumns(subjects), nothing: "No VM was seen since the agent started.",
});
const processTable = subjectTable(at("processes"), {
  noun: "process", nouns: "processes", caption: "Processes", columns: processColumns(subjects),
  nothing: "No process has had a trapped lock or an alignment check since the agent started.",
});
const eventList = new Events(at("events"));
const places = {};
for (const name of ["probes", "losses", "fullness"]) {
  places[name] = make("div");
  at(name).append(places[name]);
}

/** Says something to those who cannot see it; only where something is different now. */
function announce(text) {
  setText(at("announcement"), text);
}

let verdict = null;

function show(snapshot) {
  const vms = snapshot.vms.map((row) => [keyOf("vm", row), row]);
  const processes = snapshot.processes.map((row) => [keyOf("process", row), row]);
  const counters = [...vms, ...processes].map(([key, row]) => [key, events(row), row]);
  const isBack = [
    hostHistories.add(snapshot.taken_at, hostCounters(snapshot)),
    subjects.add(snapshot.taken_at, counters),
  ].some(Boolean);
  if (isBack) forget(snapshot, counters);
  totalHistories.add(snapshot.taken_at, sumCounters(snapshot));
  showVerdict(snapshot.host);
  showTotals(snapshot, totalHistories, hostHistories);
  vmTable.update(vms);
  processTable.update(processes);
  eventList.update(snapshot.recent);
  showProbes(places.probes, snapshot.probes);
  showLosses(places.losses, snapshot.lost);
  showFullness(places.fullness, snapshot);
  const [, sentence] = verdictOf(snapshot.host.sees);
  if (isBack) announce("The agent started again: its figures begin anew.");
  else if (verdict !== sentence) announce(sentence);
  verdict = sentence;
  document.title = `${titleMark(snapshot)}splitlock-agent`;
}

/** The number of locks, for a tab that is one of many. */
function titleMark(snapshot) {
  const total = locksOf(snapshot, "user") + locksOf(snapshot, "guest");
  return total === 0 ? "" : `(${count(total).text}) `;
}

/** After a restart of the agent everything counts from now. */
function forget(snapshot, counters) {
  reset();
  hostHistories.add(snapshot.taken_at, hostCounters(snapshot));
  subjects.add(snapshot.taken_at, counters);
}

function reset() {
  for (const histories of [subjects, hostHistories, totalHistories]) histories.forget();
}

let lastTaken = null;

function tell({ state, taken, every, wasGone, since, why }) {
  const place = at("connection");
  if (place.dataset.state !== state && state !== "live") {
    announce(state === "paused" ? "Paused." : `The agent is gone: ${why}. Trying again.`);
  } else if (wasGone) {
    announce("The agent is back.");
  }
  place.dataset.state = state;
  lastTaken = taken ?? lastTaken;
  const figures = lastTaken === null ? "" : `; figures of ${clock(lastTaken).text.slice(0, 8)}`;
  setText(at("connection-text"), {
    live: `Live, every ${every} s${figures}`,
    paused: `Paused${figures}`,
    gone: `The agent is gone since ${clock(since ?? 0).text.slice(0, 8)}: ${why}. Trying again${figures}`,
  }[state]);
  document.body.classList.toggle("stale", state === "gone");
}

startTheme();
const poll = new Poll({ show, tell, reset });
at("pause").addEventListener("click", () => {
  const isPaused = !poll.isPaused;
  setAttribute(at("pause"), "aria-pressed", String(isPaused));
  poll.setPaused(isPaused);
});
poll.resume();
