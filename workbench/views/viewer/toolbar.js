// The viewer's buttons and fields, and the table of its keys.

const VIEWS = {
  magnitude: "magnitude",
  phase: "phase",
  real: "real part",
  imaginary: "imaginary part",
  kspace: "log k-space",
};
const HELP = [
  ["wheel, ↑ ↓", "slice"],
  ["Home, End", "first, last slice"],
  ["space", "play, stop"],
  ["drag", "window: right is wider, up is brighter"],
  ["w W, l L", "window narrower, wider; level lower, higher"],
  ["double click, a", "window as it was"],
  ["m p r i k", "magnitude, phase, real, imaginary, log k-space"],
  ["← →", "coil; before the first: all combined"],
  ["ctrl + wheel, + −", "zoom"],
  ["shift + drag", "move what is zoomed"],
  ["shift + arrows", "move the cursor by a pixel"],
  ["0", "the whole picture"],
  ["f", "upright, or upside down as stored"],
  ["o", "with or without the oversampled margin"],
  ["b", "boxes on, off"],
  ["?", "these keys"],
];

class Toolbar {
  constructor(viewer) {
    const { slices, coils, model } = viewer;
    const option = ([value, text]) => make("option", { value }, text);
    this.view = make("select", {}, ...Object.entries(VIEWS).map(option));
    this.view.addEventListener("change", () => viewer.set("view", this.view.value));
    this.coil = make("select", {}, option([COMBINED, "all combined"]));
    for (let coil = 0; coil < coils; coil++) this.coil.append(option([coil, `${coil}`]));
    this.coil.addEventListener("change", () => viewer.set("coil", Number(this.coil.value)));
    this.slice = make("input", { type: "range", min: 0, max: slices - 1, step: 1 });
    this.slice.addEventListener("input", () => viewer.go(Number(this.slice.value)));
    this.sliceText = make("span", { class: "workbench-slice" });
    this.lastSlice = slices - 1;
    const button = (text, label, act) => {
      const made = make("button", { type: "button", title: label, "aria-label": label }, text);
      made.addEventListener("click", act);
      return made;
    };
    this.play = button("▶", "play", () => viewer.play());
    const turn = () => viewer.set("upright", !model.get("upright"));
    this.element = make(
      "div",
      { class: "workbench-toolbar" },
      make("label", {}, "slice ", this.slice),
      this.sliceText,
      this.play,
      make("label", {}, "show ", this.view),
      ...(coils ? [make("label", {}, "coil ", this.coil)] : []),
      button("⇅", "upright or as stored", turn),
      button("↺", "window and zoom as they were", () => viewer.reset()),
      button("?", "keys", () => viewer.toggleHelp()),
    );
  }

  /** Show what is shown. */
  say(slice, view, coil) {
    this.slice.value = slice;
    this.sliceText.textContent = `${slice} of 0–${this.lastSlice}`;
    this.view.value = view;
    this.coil.value = coil;
    // Combined over coils there is no phase.
    for (const option of this.view.options) {
      option.disabled = coil === COMBINED && !["magnitude", "kspace"].includes(option.value);
    }
  }

  sayPlaying(playing) {
    this.play.textContent = playing ? "■" : "▶";
    this.play.title = playing ? "stop" : "play";
    this.play.setAttribute("aria-label", this.play.title);
  }
}

function makeHelp(close) {
  const cells = ([keys, text]) => [make("th", {}, keys), make("td", {}, text)];
  const rows = HELP.map((line) => make("tr", {}, ...cells(line)));
  const help = make("div", { class: "workbench-help", role: "dialog", "aria-label": "Keys" });
  help.tabIndex = -1;
  help.hidden = true;
  help.append(make("table", {}, ...rows), make("p", {}, "Esc or ? closes this."));
  help.addEventListener("click", close);
  return help;
}
