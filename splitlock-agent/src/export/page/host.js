// What the host is: the verdict in words, and the totals.

const MODES = {
  off: "Detection is switched off: every lock passes unseen.",
  warn: "The kernel reports the offender and lets it go on.",
  fatal: "The kernel sends the offender SIGBUS, which ends it unless it handles that.",
  ratelimit: "The kernel slows bus locks down to a rate.",
  unsupported: "This CPU cannot trap such locks, or the kernel does not use that it can.",
  unknown: "It could not be told which mode the kernel is in.",
};

const SOURCES = {
  memory: "read from the kernel's own variable",
  boot_message: "from what the kernel said at boot",
  cpu_flags: "from the CPU's flags",
  parameter: "from the boot parameter",
  default: "the kernel's default for this CPU",
  none: "from nothing",
};

/** The sentence that answers the question, and how good the news is. */
function verdictOf(sees) {
  const { user, guest } = sees;
  if (user === undefined && guest === undefined) {
    return ["unknown", "It is not known whether this host would notice a lock."];
  }
  if (user && guest) return ["good", "Yes: a lock of a process would be noticed, and of a guest too."];
  if (user) return ["part", `A lock of a process would be noticed, ${guest === undefined ? "of a guest perhaps" : "of a guest it would not"}.`];
  if (guest) return ["part", `A lock of a guest would be noticed, ${user === undefined ? "of a process perhaps" : "of a process it would not"}.`];
  return ["bad", "No: locks of processes and guests would pass unnoticed."];
}

function yesNo(value, yes, no, unknown) {
  return value === undefined || value === null ? unknown : value ? yes : no;
}

function showVerdict(host) {
  setText(at("kernel"), ` on Linux ${host.kernel}`);
  at("verdict").removeAttribute("aria-busy");
  redraw(at("verdict-body"), host, () => {
    const [news, sentence] = verdictOf(host.sees);
    const features = Object.entries(host.cpu_features).map(([name, has]) => `${words(name)}: ${has ? "yes" : "no"}`);
    const facts = [
      ["A process's lock", yesNo(host.sees.user, "would be noticed", "would pass unnoticed", "not known")],
      ["A guest's lock", yesNo(host.sees.guest, "would be noticed", "would pass unnoticed", "not known")],
      ["Mode", `${host.detection_mode}. ${MODES[host.detection_mode] ?? ""}`],
      ["How it is known", SOURCES[host.detection_source] ?? words(host.detection_source)],
      ["Mitigation", yesNo(host.mitigation, "on: offenders are delayed", "off: offenders are not delayed", "this kernel has no switch for it")],
      ["Changes seen", host.changes === 0 ? "none of mode or mitigation" : `${plural(host.changes, "change")} of mode or mitigation`],
      ["CPU", features.join(", ") || "not known"],
    ];
    return [make("p", { className: `verdict ${news}` }, sentence), factList(facts)];
  });
}

/** Pairs of a name and its value. */
function factList(facts) {
  const list = make("dl", { className: "facts" });
  for (const [name, value] of facts) {
    const cell = make("dd", value?.exact === undefined ? {} : { title: value.exact });
    cell.append(value?.exact === undefined ? value : value.text);
    list.append(make("div", {}, make("dt", {}, name), cell));
  }
  return list;
}

const tileElements = new Map();

/** One total with its rate and its line. */
function showTile(key, title, total, histories) {
  let tile = tileElements.get(key);
  if (!tile) {
    tile = { total: make("span", { className: "total" }), rate: make("span", { className: "quiet" }), line: makeSparkline(220, 36) };
    const name = make("h3", {}, title);
    at("tiles").append(make("div", { className: "tile" }, name, make("p", {}, tile.total, " ", tile.rate), tile.line));
    tileElements.set(key, tile);
  }
  const figure = count(total);
  setText(tile.total, figure.text);
  setAttribute(tile.total, "title", figure.exact);
  const perSecond = rate(histories.rate(key));
  setText(tile.rate, `${perSecond.text}/s`);
  setAttribute(tile.rate, "title", perSecond.exact);
  drawSparkline(tile.line, histories.samples(key));
}

const TILES = [
  ["host:user", "Locks of processes", (snapshot) => locksOf(snapshot, "user")],
  ["host:guest", "Locks of guests", (snapshot) => locksOf(snapshot, "guest")],
  ["host:ac", "Alignment checks of processes", (snapshot) => snapshot.processes.reduce((all, row) => all + row.alignment_checks, 0)],
  ["host:injected", "#AC injected into guests", (snapshot) => snapshot.vms.reduce((all, row) => all + row.ac_injected, 0)],
];

function locksOf(snapshot, origin) {
  return snapshot.host_traps.reduce((all, trap) => all + (trap.origin === origin ? trap.count : 0), 0);
}

function trapKey(trap) {
  return `trap:${trap.origin}:${trap.trap}:${trap.outcome}`;
}

/**
 * The host's counters. Sums over subjects shrink when the series of an ended one go; they are given
 * apart from those that never do.
 */
function hostCounters(snapshot) {
  return snapshot.host_traps.map((trap) => [trapKey(trap), trap.count, trap]);
}

function sumCounters(snapshot) {
  return TILES.map(([key, , read]) => [key, read(snapshot), null]);
}

function showTotals(snapshot, totals, histories) {
  for (const [key, title, read] of TILES) showTile(key, title, read(snapshot), totals);
  const nameOf = (trap) => [trap.origin === "user" ? "process" : trap.origin, words(trap.trap), words(trap.outcome)];
  const rows = snapshot.host_traps.filter((trap) => trap.count > 0)
    .map((trap) => [...nameOf(trap), count(trap.count), rate(histories.rate(trapKey(trap)))]);
  const never = snapshot.host_traps.filter((trap) => trap.count === 0).map((trap) => nameOf(trap).join(" "));
  const overflow = sum(snapshot.overflow_traps);
  redraw(at("totals-table"), [rows, never, overflow], () => {
    const columns = [["Origin"], ["Trap"], ["Outcome"], ["Total", "number"], ["Per second", "number"]];
    const notes = [];
    if (rows.length > 0) {
      notes.push(scrollable("Totals by origin, trap and outcome", plainTable("Trapped locks of the host by origin, trap and outcome", columns, rows)));
    }
    if (never.length > 0) notes.push(make("p", { className: "quiet" }, `None since the start: ${never.join(", ")}.`));
    if (overflow > 0) {
      notes.push(make("p", { className: "notice" }, `${count(overflow).text} traps are of processes, workloads or VMs past a limit, which have no row below.`));
    }
    return notes;
  });
}
