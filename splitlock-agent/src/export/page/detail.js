// What a row opens to: whose it is, its exits by reason, its hot sites, its newest events.

class Detail {
  constructor(place, histories) {
    this.histories = histories;
    this.full = null;
    this.parts = {};
    this.note = make("p", { className: "quiet" });
    const box = make("div", { className: "detail-box" });
    for (const name of ["who", "sites", "exits", "recent"]) {
      this.parts[name] = make("div", { className: `part ${name}` });
      box.append(this.parts[name]);
    }
    place.append(box, this.note);
  }

  /** Shows what the snapshot has, then asks for the rest. */
  update(key, row) {
    this.draw(key, row);
    this.ask(key, row);
  }

  async ask(key, row) {
    if (this.isAsking) return;
    this.isAsking = true;
    try {
      const text = await getText(`/api/v1/subjects/${row.pid}-${row.start_ticks}`);
      this.full = text === null ? null : JSON.parse(text);
      setText(this.note, text === null ? "The agent has no more on it than this." : "");
    } catch {
      setText(this.note, "The agent did not tell more.");
    } finally {
      this.isAsking = false;
    }
    this.draw(key, row);
  }

  draw(key, row) {
    redraw(this.parts.who, identityOf(row), (facts) => [make("h3", {}, "Identity"), factList(facts)]);
    const sites = this.full?.sites ?? row.sites ?? [];
    redraw(this.parts.sites, [sites, this.full?.other_records], () => drawSites(sites, this.full?.other_records ?? 0, row));
    if (row.exits) redraw(this.parts.exits, exitRows(key, row, this.histories), drawExits);
    const recent = this.full?.recent ?? [];
    redraw(this.parts.recent, recent, () => (recent.length === 0 ? [] : [make("h3", {}, "Its newest events"), scrollable("Its newest events", eventTable("Its newest events", recent))]));
  }
}

/** All that is known of whose it is. */
function identityOf(row) {
  const missing = row.missing.map(({ fact, why }) => `${words(fact)}: ${words(why)}`).join(", ");
  const facts = [
    ["Process", `${row.pid}, started ${new Date(row.started_at * 1000).toLocaleString()}`],
    ["Id", row.id],
    ["VMM", row.vmm && `${words(row.vmm)}, named by ${words(row.named_by)}`],
    ["vCPUs", row.vcpus === undefined ? "" : String(row.vcpus)],
    ["Executable", row.exe],
    ["Command line", row.command_line],
    ["Unit", row.unit],
    ["Container", row.container_id],
    ["Pod", row.pod_uid],
    ["Cgroup", row.cgroup],
    ["Last trap", row.last_trap ? new Date(row.last_trap * 1000).toLocaleString() : ""],
    ["Not known", missing],
  ];
  return facts.filter(([, value]) => value);
}

function drawSites(sites, others, row) {
  const title = make("h3", {}, "Hot sites");
  if (sites.length === 0) return [title, make("p", { className: "quiet" }, "No record told of an instruction yet.")];
  const list = make("ol", { className: "sites" });
  for (const site of sites) list.append(make("li", {}, ...drawSite(site, row)));
  const note = others === 0 ? null : make("p", { className: "quiet" }, `${plural(others, "record")} of other sites found no room.`);
  return [title, list, note].filter(Boolean);
}

function drawSite(site, row) {
  const code = site.code ?? {};
  const head = make("p", {}, make("strong", { className: "code" }, placeOf(site)), " ",
    make("span", { className: "quiet" }, `${words(site.event)}, ${plural(site.records, "record")}`));
  const facts = [["Address", `${site.ip}${row.vm === undefined ? "" : site.event.startsWith("user") || site.event === "alignment_check" ? "" : " in the guest"}`]];
  if (code.source) facts.push(["Source", code.source]);
  if (code.instruction || code.bytes) {
    facts.push(["Instruction", make("span", {}, make("code", {}, code.instruction ?? ""), " ", make("span", { className: "quiet code" }, code.bytes ?? ""))]);
  }
  if (code.operand) {
    const { address, modulo_64, size, crosses_line } = code.operand;
    facts.push(["Operand", make("span", {}, make("code", {}, address), `, byte ${modulo_64} of its cache line, ${plural(size, "byte")} long: `,
      make("strong", { className: crosses_line ? "crosses" : "" }, crosses_line ? "crosses the line" : "does not cross the line"))]);
  }
  if (code.file) facts.push(["File", `${code.file}${code.offset ? ` at ${code.offset}` : ""}`]);
  if (code.build_id) facts.push(["Build id", code.build_id]);
  if (code.missing) facts.push(["Not known", code.missing]);
  return [head, factList(facts)];
}

function exitRows(key, row, histories) {
  const rows = [];
  for (const [kind, field] of [["exit", "exits"], ["return to the VMM", "userspace_exits"]]) {
    for (const [reason, number] of Object.entries(row[field])) {
      const perSecond = histories.gain(key, (other) => other[field][reason] ?? 0);
      rows.push({ reason, kind, number, perSecond });
    }
  }
  return rows.sort((a, b) => (b.perSecond ?? 0) - (a.perSecond ?? 0) || b.number - a.number);
}

function drawExits(rows) {
  const title = make("h3", {}, "Exits by reason");
  if (rows.length === 0) return [title, make("p", { className: "quiet" }, "None seen.")];
  const cells = rows.map(({ reason, kind, number, perSecond }) => [words(reason), kind, count(number), rate(perSecond)]);
  const table = plainTable("Exits by reason", [["Reason"], ["Kind"], ["Total", "number"], ["Per second", "number"]], cells);
  return [title, scrollable("Exits by reason", table)];
}
