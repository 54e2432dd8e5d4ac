// A table of subjects that may be thousands: it can be sorted and filtered, shows the first 50, and
// a row opens to its detail. It is changed in place, so that focus, scroll and open rows stay.

const STEP = 50;
const HAS_POINTER = matchMedia("(hover: hover)");

class SubjectTable {
  /**
   * `columns` are `{name, title, isNumber, firstDown, value(row), draw(cell, row)}`: by `value` it is
   * sorted, and `draw` fills a cell that may be filled already. The first is the row's name.
   * `nothing` is said where there is no row; `words(row)` are what the filter looks at.
   */
  constructor(section, { noun, nouns, caption, columns, sorted, nothing, words, detail }) {
    Object.assign(this, { noun, nouns, columns, nothing, words, detail });
    this.sort = { name: sorted, down: true };
    this.limit = STEP;
    this.rows = [];
    this.lines = new Map();
    this.order = [];
    this.open = new Set();
    this.build(section, caption);
  }

  build(section, caption) {
    const id = section.id;
    this.filter = make("input", { type: "search", id: `${id}-filter`, autocomplete: "off", spellcheck: false, placeholder: "name, pid, unit, function …" });
    this.running = make("input", { type: "checkbox", id: `${id}-running` });
    this.count = make("p", { className: "quiet", id: `${id}-count` });
    const tools = make("div", { className: "tools" },
      make("label", { htmlFor: this.filter.id }, `Filter ${this.nouns}`), this.filter,
      make("label", { className: "check", htmlFor: this.running.id }, this.running, "running only"), this.count);
    this.filter.addEventListener("input", () => this.choose());
    this.running.addEventListener("change", () => this.choose());
    const head = make("tr");
    for (const column of this.columns) {
      const mark = make("span", { className: "mark", "aria-hidden": "true" });
      const button = make("button", { type: "button", className: "sort" }, column.title, mark);
      button.addEventListener("click", () => this.sortBy(column));
      column.head = make("th", { scope: "col", className: column.isNumber ? "number" : "" }, button);
      column.mark = mark;
      head.append(column.head);
    }
    this.body = make("tbody");
    const table = make("table", { id: `${id}-table` }, make("caption", { className: "hidden" }, caption), make("thead", {}, head), this.body);
    this.scroll = scrollable(caption, table);
    this.empty = make("p", { className: "quiet" });
    this.more = make("button", { type: "button", className: "more" }, "Show more");
    this.more.addEventListener("click", () => {
      this.limit += STEP;
      this.render(true);
    });
    section.append(tools, this.scroll, this.empty, this.more);
    this.markSort();
  }

  choose() {
    this.limit = STEP;
    this.render(true);
  }

  sortBy(column) {
    const isSame = this.sort.name === column.name;
    this.sort = { name: column.name, down: isSame ? !this.sort.down : Boolean(column.isNumber || column.firstDown) };
    this.markSort();
    this.render(true);
  }

  markSort() {
    for (const column of this.columns) {
      const isSorted = column.name === this.sort.name;
      setAttribute(column.head, "aria-sort", isSorted ? (this.sort.down ? "descending" : "ascending") : "none");
      setText(column.mark, isSorted ? (this.sort.down ? "▼" : "▲") : "");
    }
  }

  /** Takes the rows of a snapshot: `[key, row]`. */
  update(rows) {
    this.rows = rows;
    this.render(false);
  }

  /** Those that the filter admits, in order. */
  chosen() {
    const terms = this.filter.value.toLowerCase().split(/\s+/u).filter(Boolean);
    const rows = this.rows.filter(([, row]) => {
      if (this.running.checked && !row.alive) return false;
      if (terms.length === 0) return true;
      const text = this.words(row).join("\n").toLowerCase();
      return terms.every((term) => text.includes(term));
    });
    const { value } = this.columns.find((column) => column.name === this.sort.name);
    const sign = this.sort.down ? -1 : 1;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
    const keyed = rows.map(([key, row]) => ({ key, row, value: value(row, key) }));
    keyed.sort((a, b) => sign * compare(a.value, b.value) || (a.key < b.key ? -1 : 1));
    return keyed;
  }

  /** Rows do not move under the pointer or around the focus, unless the reader sorts or filters. */
  isHeld() {
    return this.body.contains(document.activeElement) || (HAS_POINTER.matches && this.body.matches(":hover"));
  }

  render(isAsked) {
    const chosen = this.chosen();
    const total = this.rows.length;
    const isHeld = !isAsked && this.isHeld();
    setText(this.count, total === 0 ? "" : `${count(Math.min(this.limit, chosen.length)).text} of ${count(chosen.length).text}`
      + (chosen.length < total ? `, filtered from ${count(total).text}` : "")
      + (isHeld ? "; in this order while you are in the table" : ""));
    setText(this.empty, total === 0 ? this.nothing : chosen.length === 0 ? `No ${this.noun} fits the filter.` : "");
    this.empty.hidden = chosen.length > 0;
    this.scroll.hidden = chosen.length === 0;
    this.more.hidden = chosen.length <= this.limit;
    if (!isAsked && isSelected(this.body)) return;
    const wanted = chosen.slice(0, this.limit);
    const inside = new Set(wanted.map(({ key }) => key));
    // An open row stays, also when others have passed it; one that is gone is gone.
    for (const one of chosen.slice(this.limit)) {
      if (this.open.has(one.key) && !inside.has(one.key)) wanted.push(one);
    }
    this.place(isHeld ? this.asTheyAre(wanted, chosen) : wanted);
  }

  /** Those that are shown, in their order, then those that are new to it. */
  asTheyAre(wanted, chosen) {
    const all = new Map(chosen.map((one) => [one.key, one]));
    const kept = [...this.order].filter((key) => all.has(key)).map((key) => all.get(key));
    const shown = new Set(this.order);
    const room = Math.max(0, this.limit - kept.length);
    return [...kept, ...wanted.filter(({ key }) => !shown.has(key)).slice(0, room)];
  }

  place(rows) {
    const hadFocus = this.body.contains(document.activeElement);
    this.order = rows.map(({ key }) => key);
    const keys = new Set(this.order);
    for (const [key, line] of this.lines) {
      if (keys.has(key)) continue;
      line.remove();
      this.lines.delete(key);
      if (!this.rows.some(([other]) => other === key)) this.open.delete(key);
    }
    let next = this.body.firstChild;
    for (const { key, row } of rows) {
      let line = this.lines.get(key);
      if (!line) {
        line = new SubjectLine(this, key);
        this.lines.set(key, line);
      }
      line.update(row);
      for (const element of line.elements()) {
        if (element === next) next = next.nextSibling;
        else this.body.insertBefore(element, next);
      }
    }
    // The row with the focus has gone: the reader goes on at the table.
    if (hadFocus && !this.body.contains(document.activeElement)) this.scroll.focus({ preventScroll: true });
  }

  /** The open rows that are shown. */
  opened() {
    return [...this.open].filter((key) => this.lines.has(key)).map((key) => this.lines.get(key));
  }
}

/** A row and, once it was opened, its detail. */
class SubjectLine {
  constructor(table, key) {
    this.table = table;
    this.key = key;
    const id = `detail-${table.body.parentElement.id}-${key.replace(/[^\w-]/gu, "-")}`;
    this.button = make("button", { type: "button", className: "open", "aria-expanded": "false", "aria-controls": id });
    this.button.addEventListener("click", () => this.toggle());
    this.cells = table.columns.map((column, index) => {
      const cell = make(index === 0 ? "th" : "td", { className: column.isNumber ? "number" : column.name });
      if (index === 0) {
        cell.scope = "row";
        cell.append(this.button);
      }
      return cell;
    });
    this.line = make("tr", { className: "subject" }, ...this.cells);
    this.place = make("td", { colSpan: table.columns.length });
    this.below = make("tr", { className: "detail", id, hidden: true }, this.place);
    if (table.open.has(key)) this.toggle();
  }

  elements() {
    return [this.line, this.below];
  }

  remove() {
    this.line.remove();
    this.below.remove();
  }

  toggle() {
    const isOpen = this.button.getAttribute("aria-expanded") !== "true";
    setAttribute(this.button, "aria-expanded", String(isOpen));
    this.below.hidden = !isOpen;
    if (isOpen) {
      this.table.open.add(this.key);
      this.shown ??= this.table.detail(this.place);
      if (this.row) this.shown.update(this.key, this.row);
    } else {
      this.table.open.delete(this.key);
    }
  }

  update(row) {
    this.row = row;
    this.line.classList.toggle("ended", !row.alive);
    this.table.columns.forEach((column, index) => {
      column.draw(index === 0 ? this.button : this.cells[index], row, this.key);
    });
    if (!this.below.hidden) this.shown.update(this.key, row);
  }
}
