// The newest events.

/** Events that are shown before the reader asks for all. */
const FIRST = 15;

function eventTable(caption, stories) {
  const columns = [["Time"], ["Event"], ["Thread"], ["PID", "number"], ["TID", "number"], ["CPU", "number"], ["vCPU", "number"], ["Function or address"], ["Probe"]];
  const rows = stories.map((story) => {
    const time = clock(story.time);
    const place = make("span", { className: "code", title: story.ip ?? "" }, story.function ?? story.ip ?? "");
    return [make("time", { dateTime: time.exact, title: time.exact }, time.text), words(story.event), story.comm, String(story.pid),
      String(story.tid), String(story.cpu), story.vcpu === null ? "" : String(story.vcpu), place, make("code", {}, story.probe)];
  });
  return plainTable(caption, columns, rows);
}

class Events {
  constructor(section) {
    this.list = make("div");
    this.all = make("button", { type: "button", className: "more", hidden: true, "aria-expanded": "false" }, "Show all");
    this.isAll = false;
    this.all.addEventListener("click", () => {
      this.isAll = !this.isAll;
      setAttribute(this.all, "aria-expanded", String(this.isAll));
      this.update(this.recent);
    });
    section.append(make("p", { className: "quiet" }, "A sample: records are limited per second and subject. The counts above are not."), this.list, this.all);
  }

  update(recent) {
    this.recent = recent;
    this.all.hidden = recent.length <= FIRST;
    setText(this.all, this.isAll ? "Show fewer" : `Show all ${recent.length}`);
    redraw(this.list, this.isAll ? recent : recent.slice(0, FIRST), (stories) => (stories.length === 0
      ? make("p", { className: "quiet" }, "None yet.")
      : scrollable("Newest events", eventTable("Newest events, newest first", stories))));
  }
}
