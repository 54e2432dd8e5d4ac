// The agent itself: its probes, what it lost, how full it is.

const COUNTS = {
  every_trap: "every trap",
  lower_bound: "a lower bound: the kernel hides some",
  first_per_thread: "about the first trap of each thread",
  none: "nothing: it only adds detail",
};

const LOSSES = {
  record_ring_full: "detail records: their ring buffer was full. No count is affected",
  record_rate_limit: "detail records: their subject had had its share of the second. No count is affected",
  trap_ledger_full: "events without a subject: they are in the host's totals only",
  exit_ledger_full: "VM exits: no row was free for the vCPU thread",
  task_unreadable: "events without a subject, or VM exits: the kernel let nobody read the task",
  signal_unreadable: "SIGBUS that could not be judged",
  exit_unreadable: "records of KVM that could not be read",
  call_untracked: "calls that could not be followed to their return",
  kernel_log_overrun: "kernel messages, overwritten before they were read",
  kernel_log_malformed: "kernel messages that nobody understood",
  return_unseen: "delays: the return of the kernel's function was not seen",
  identity_ended: "names: the process had ended",
  identity_overdue: "names: the host did not answer in time",
  identity_unreadable: "names: the host refused them",
  code_queue_full: "what is at an address: too many questions were open",
  event_log_rate_limit: "lines of the event log: too many in a second",
  event_log_behind: "lines of the event log: its reader is too slow, or gone",
};

function showProbes(place, probes) {
  const rows = probes.map((probe) => [
    make("code", {}, probe.probe),
    probe.via === null ? make("strong", {}, "not attached") : words(probe.via),
    probe.via === null ? "" : (COUNTS[probe.counts] ?? words(probe.counts)),
    probe.runs === null ? "" : count(probe.runs.runs),
    probe.missed === null ? "" : count(probe.missed),
    probe.refused.join("; "),
  ]);
  redraw(place, probes, () => scrollable("Probes", plainTable("The kernel's hooks that the agent is attached to",
    [["Probe"], ["Attached by"], ["Its count is", "prose"], ["Runs", "number"], ["Missed", "number"], ["Refused", "prose"]], rows)));
}

function showLosses(place, lost) {
  const happened = Object.entries(lost).filter(([, number]) => number > 0);
  redraw(place, happened, () => {
    if (happened.length === 0) return make("p", { className: "quiet" }, "None since the agent started.");
    const rows = happened.map(([cause, number]) => [make("code", {}, cause), count(number), LOSSES[cause] ?? ""]);
    return scrollable("Losses", plainTable("What was lost, by cause", [["Cause"], ["Count", "number"], ["What it is", "prose"]], rows));
  });
}

const SETS = { process: "Processes", vm: "VMs", workload: "Workloads", traps: "Trap ledger", exits: "Exit ledger" };

function showFullness(place, snapshot) {
  const rows = [];
  const add = (name, used, limit, figure) => {
    const share = limit === 0 ? 0 : used / limit;
    const percent = used > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`;
    const meter = make("meter", { min: 0, max: 1, high: 0.8, optimum: 0, value: share, "aria-label": `${name}: ${percent} full` });
    rows.push([name, figure(used), figure(limit), make("span", { className: "share" }, meter, ` ${percent}`)]);
  };
  for (const [name, { used, limit }] of Object.entries(snapshot.tracked)) add(SETS[name] ?? words(name), used, limit, count);
  for (const [name, { used, limit }] of Object.entries(snapshot.ledgers)) add(SETS[name] ?? words(name), used, limit, count);
  const ring = snapshot.record_ring;
  if (ring) add("Ring of records, at its fullest", ring.peak_bytes, ring.size_bytes, bytes);
  const refused = sum(snapshot.overflow_subjects);
  redraw(place, [snapshot.tracked, snapshot.ledgers, ring?.peak_bytes, refused], () => {
    const table = plainTable("How full each bounded set is", [["What"], ["Used", "number"], ["Places", "number"], ["Full"]], rows);
    const note = refused === 0 ? [] : [make("p", { className: "notice" }, `${plural(refused, "subject")} found no place and can be told apart no more: raise the limits of the agent.`)];
    return [scrollable("How full it is", table), ...note];
  });
}
