// The viewer's buttons and fields, and its keys: what the help says of them, and what they do.

const VIEWS = {
  magnitude: "magnitude",
  phase: "phase",
  real: "real part",
  imaginary: "imaginary part",
  kspace: "log k-space",
};
const CENTRE = { x: 0.5, y: 0.5 };
const initials = Object.keys(VIEWS).map((view) => [view[0], (viewer) => viewer.set("view", view)]);
const KEYS = [
  ["wheel, ↑ ↓", "slice", { ArrowUp: (v) => v.go(v.slice - 1), ArrowDown: (v) => v.go(v.slice + 1) }],
  ["Home, End", "first, last slice", { Home: (v) => v.go(0), End: (v) => v.go(v.slices - 1) }],
  ["space", "play, stop", { " ": (v) => v.play() }],
  ["drag", "window: right is wider, up is brighter"],
  [
    "w W, l L",
    "window narrower, wider; level lower, higher",
    {
      w: (v) => v.changeWindow(1 / 1.15, 0),
      W: (v) => v.changeWindow(1.15, 0),
      l: (v) => v.changeWindow(1, -0.05),
      L: (v) => v.changeWindow(1, 0.05),
    },
  ],
  ["double click, a", "window as it was", { a: (v) => v.resetWindow(v.panes[v.active]) }],
  ["m p r i k", "magnitude, phase, real, imaginary, log k-space", Object.fromEntries(initials)],
  [
    "← →",
    "coil; before the first: all combined",
    { ArrowLeft: (v) => v.stepCoil(-1), ArrowRight: (v) => v.stepCoil(1) },
  ],
  [
    "ctrl + wheel, + −",
    "zoom",
    { "+": (v) => v.zoomBy(1.25), "=": (v) => v.zoomBy(1.25), "-": (v) => v.zoomBy(0.8) },
  ],
  ["shift + drag", "move what is zoomed"],
  [
    "shift + arrows",
    "move the cursor by a pixel",
    {
      "Shift+ArrowUp": (v) => v.moveCursor(0, -1),
      "Shift+ArrowDown": (v) => v.moveCursor(0, 1),
      "Shift+ArrowLeft": (v) => v.moveCursor(-1, 0),
      "Shift+ArrowRight": (v) => v.moveCursor(1, 0),
    },
  ],
  ["0", "the whole picture", { 0: (v) => ((v.zoom = 1), v.lookAt(CENTRE)) }],
  ["f", "upright, or upside down as stored", { f: (v) => v.turn() }],
  ["o", "with or without the oversampled margin", { o: (v) => ((v.whole = !v.whole), v.draw()) }],
  ["b", "boxes on, off", { b: (v) => ((v.boxes = !v.boxes), v.draw()) }],
  ["?", "these keys", { "?": (v) => v.toggleHelp(), Escape: (v) => v.help.hidden || v.toggleHelp() }],
];
const ACTIONS = Object.assign({}, ...KEYS.map(([, , actions]) => actions));

/** Make the bar of buttons and fields, with functions that show what is shown. */
function makeToolbar(viewer) {
  const option = ([value, text]) => make("option", { value }, text);
  const button = (text, label, act) => {
    const made = make("button", { type: "button", title: label, "aria-label": label }, text);
    made.addEventListener("click", act);
    return made;
  };
  const last = viewer.slices - 1;
  const view = make("select", {}, ...Object.entries(VIEWS).map(option));
  view.addEventListener("change", () => viewer.set("view", view.value));
  const coils = [...Array(viewer.coils).keys()].map((coil) => [coil, `${coil}`]);
  const coil = make("select", {}, ...[[COMBINED, "all combined"], ...coils].map(option));
  coil.addEventListener("change", () => viewer.set("coil", Number(coil.value)));
  const slice = make("input", { type: "range", min: 0, max: last, step: 1 });
  slice.addEventListener("input", () => viewer.go(Number(slice.value)));
  const place = make("span", { class: "workbench-slice" });
  const play = button("▶", "play", () => viewer.play());
  const element = make(
    "div",
    { class: "workbench-toolbar" },
    make("label", {}, "slice ", slice),
    place,
    play,
    make("label", {}, "show ", view),
    ...(coils.length ? [make("label", {}, "coil ", coil)] : []),
    button("⇅", "upright or as stored", () => viewer.turn()),
    button("↺", "window and zoom as they were", () => viewer.reset()),
    button("?", "keys", () => viewer.toggleHelp()),
  );
  const say = () => {
    slice.value = viewer.slice;
    place.textContent = `${viewer.slice} of 0–${last}`;
    view.value = viewer.view;
    coil.value = viewer.coil;
    for (const each of view.options) {
      const plain = ["magnitude", "kspace"].includes(each.value);
      each.disabled = viewer.coil === COMBINED && !plain; // combined over coils there is no phase
    }
  };
  const sayPlaying = (playing) => {
    play.textContent = playing ? "■" : "▶";
    play.title = playing ? "stop" : "play";
    play.setAttribute("aria-label", play.title);
  };
  return { element, say, sayPlaying };
}

function makeHelp(close) {
  const rows = KEYS.map(([keys, text]) =>
    make("tr", {}, make("th", {}, keys), make("td", {}, text)),
  );
  const help = make("div", { class: "workbench-help", role: "dialog", "aria-label": "Keys" });
  help.tabIndex = -1;
  help.hidden = true;
  help.append(make("table", {}, ...rows), make("p", {}, "Esc or ? closes this."));
  help.addEventListener("click", close);
  return help;
}
