// The columns of the tables of VMs and processes.

const EVENTS_HINT = "trapped locks and #AC per second";

/** Puts a figure into a cell. */
function drawFigure(cell, figure) {
  setText(cell, figure.text);
  setAttribute(cell, "title", figure.exact);
  cell.classList.toggle("zero", figure.text === "0");
}

/** A text, whole in the title, as the cell may cut it. */
function drawText(cell, text) {
  setText(cell, text);
  setAttribute(cell, "title", text);
}

function locks(row) {
  return row.traps.reduce((all, trap) => all + trap.count, 0);
}

/** Trapped locks and `#AC`: what a rate and a sparkline are of. */
function events(row) {
  return locks(row) + (row.alignment_checks ?? row.ac_injected);
}

function exits(row) {
  return sum(row.exits) + sum(row.userspace_exits);
}

/** What happened to its locks; with counts where that was more than one thing. */
function outcomes(row) {
  if (row.traps.length === 1) return `${words(row.traps[0].trap)} ${words(row.traps[0].outcome)}`;
  return row.traps.map((trap) => `${count(trap.count).text} ${words(trap.trap)} ${words(trap.outcome)}`).join(", ");
}

function unitOf(row) {
  return row.container_id || row.unit || row.cgroup || "";
}

/** Where a site is: its function, else its file, else its address. */
function placeOf(site) {
  const code = site.code ?? {};
  if (code.function) return code.function_offset ? `${code.function}+${code.function_offset}` : code.function;
  if (code.file && code.offset) return `${code.file.split("/").pop()}+${code.offset}`;
  return site.ip;
}

function topSite(row) {
  return row.sites?.length ? placeOf(row.sites[0]) : "";
}

/** The reason with most exits since the last snapshot, else since the start. */
function topExit(row, key, histories) {
  const before = histories.entries.get(key)?.before?.exits ?? {};
  let [best, most, byTotal, total] = ["", 0, "", 0];
  for (const [reason, number] of Object.entries(row.exits)) {
    const gained = number - (before[reason] ?? 0);
    if (gained > most) [best, most] = [reason, gained];
    if (number > total) [byTotal, total] = [reason, number];
  }
  return words(best || byTotal);
}

function rateColumn(histories) {
  return {
    name: "rate", title: "Events/s", isNumber: true,
    value: (row, key) => (histories.rate(key) ?? 0) + events(row) * 1e-15,
    draw: (cell, row, key) => {
      if (!cell.firstChild) {
        cell.classList.add("with-line");
        cell.append(makeSparkline(64, 20), make("span"));
      }
      const figure = rate(histories.rate(key));
      setText(cell.lastChild, figure.text);
      setAttribute(cell, "title", `${figure.exact}: ${EVENTS_HINT}`);
      drawSparkline(cell.firstChild, histories.samples(key));
    },
  };
}

function textColumn(name, title, value) {
  return { name, title, value, draw: (cell, row, key) => drawText(cell, value(row, key)) };
}

function countColumn(name, title, value) {
  return { name, title, isNumber: true, value, draw: (cell, row) => drawFigure(cell, count(value(row))) };
}

const delayColumn = {
  name: "delay", title: "Delay", isNumber: true, value: (row) => row.delay_ns,
  draw: (cell, row) => drawFigure(cell, duration(row.delay_ns)),
};

const stateColumn = textColumn("state", "State", (row) => (row.alive ? "running" : "ended"));
const outcomeColumn = textColumn("outcomes", "Outcomes", outcomes);
const siteColumn = textColumn("site", "Hottest site", topSite);
const unitColumn = textColumn("unit", "Unit or container", unitOf);

function vmColumns(histories) {
  const perSecond = (row, key) => histories.gain(key, exits);
  return [
    textColumn("name", "VM", (row) => row.vm),
    { name: "pid", title: "PID", isNumber: true, value: (row) => row.pid, draw: (cell, row) => setText(cell, String(row.pid)) },
    stateColumn,
    rateColumn(histories),
    countColumn("locks", "Locks", locks),
    outcomeColumn,
    delayColumn,
    countColumn("injected", "#AC injected", (row) => row.ac_injected),
    {
      name: "exits", title: "Exits/s", isNumber: true, value: (row, key) => perSecond(row, key) ?? 0,
      draw: (cell, row, key) => {
        const figure = rate(perSecond(row, key));
        drawFigure(cell, { text: figure.text, exact: `${figure.exact}; ${exits(row)} in all` });
      },
    },
    textColumn("reason", "Top exit", (row, key) => topExit(row, key, histories)),
    siteColumn,
    unitColumn,
  ];
}

function processColumns(histories) {
  return [
    textColumn("name", "Process", (row) => row.comm),
    { name: "pid", title: "PID", isNumber: true, value: (row) => row.pid, draw: (cell, row) => setText(cell, String(row.pid)) },
    stateColumn,
    rateColumn(histories),
    countColumn("locks", "Locks", locks),
    outcomeColumn,
    delayColumn,
    countColumn("checks", "Alignment checks", (row) => row.alignment_checks),
    siteColumn,
    unitColumn,
  ];
}

/** What a filter looks at. */
function wordsOf(row) {
  const sites = (row.sites ?? []).flatMap((site) => [site.ip, site.code?.function, site.code?.file]);
  return [row.comm, row.vm, row.id, row.vmm, String(row.pid), row.exe, row.command_line, row.unit, row.container_id,
    row.pod_uid, row.cgroup, row.alive ? "running" : "ended", ...row.traps.flatMap((trap) => [words(trap.trap), trap.outcome]), ...sites]
    .filter(Boolean);
}
