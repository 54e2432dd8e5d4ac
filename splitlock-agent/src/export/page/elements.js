// Making elements. Names come from hostile tenants: text is only ever set as text.

/** An element with properties and children; strings become text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element of the page with this id. */
function at(id) {
  return document.getElementById(id);
}

/** Sets the text only where it differs, so that a selection survives. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only where it differs. */
function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Whether somebody has text inside selected. */
function isSelected(element) {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && selection.containsNode(element, true);
}

const shown = new WeakMap();

/** Puts children made from `value` in, if it differs from what is there and nobody is reading it. */
function redraw(element, value, draw) {
  const signature = JSON.stringify(value);
  if (shown.get(element) === signature || isSelected(element)) return;
  if (element.contains(document.activeElement)) return;
  shown.set(element, signature);
  element.replaceChildren(...[draw(value)].flat());
}

/** A table that can be scrolled sideways, by keyboard too. */
function scrollable(label, table) {
  return make("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": label }, table);
}

/** A plain table: `columns` are `[title, "number" or "prose" or nothing]`, cells are strings, elements or figures. */
function plainTable(caption, columns, rows) {
  const head = make("tr");
  for (const [title, kind] of columns) {
    head.append(make("th", { scope: "col", className: kind ?? "" }, title));
  }
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    row.forEach((cell, index) => {
      const tag = index === 0 ? "th" : "td";
      const properties = { className: columns[index][1] ?? "" };
      if (index === 0) properties.scope = "row";
      if (cell?.exact !== undefined) properties.title = cell.exact;
      line.append(make(tag, properties, cell?.exact !== undefined ? cell.text : cell));
    });
    body.append(line);
  }
  const title = make("caption", { className: "hidden" }, caption);
  return make("table", {}, title, make("thead", {}, head), body);
}
