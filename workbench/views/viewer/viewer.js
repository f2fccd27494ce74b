// The viewer in the browser: what is shown, and what wheel, mouse and keys do to it. The data is
// planes.js's, each pane's canvas pane.js's, buttons, fields and keys toolbar.js's.

const PLAY_MS = 120;
const NOTCH = 50; // pixels of wheel for a slice; a mouse's notch is 100 or more, a touchpad's less

class ViewerView {
  constructor(model, planes, element) {
    this.model = model;
    this.planes = planes;
    planes.takeFirst(); // the edition may be told of before the planes that came with it
    this.edition = model.get("edition");
    this.windows = new Map();
    this.zoom = 1;
    this.centre = CENTRE; // of what is seen, as shares of the picture
    this.cursor = null; // the same, counted as stored
    this.whole = false;
    this.boxes = true;
    this.active = 0;
    this.wheeled = 0;
    this.panes = model.get("panes").map((about, index) => new PaneView(about, index));
    this.slices = this.panes[0].about.slices;
    this.coils = Math.max(...this.panes.map((pane) => pane.about.coils));
    const name = `Viewer: ${model.get("title") || this.panes[0].about.name}`;
    this.root = make("div", { class: "workbench-viewer", role: "group", "aria-label": name });
    this.toolbar = makeToolbar(this);
    this.stage = make("div", { class: "workbench-stage" }, ...this.panes.map((p) => p.element));
    this.status = make("div", { class: "workbench-status", role: "status" });
    this.help = makeHelp(() => this.toggleHelp());
    const note = make("span", {}, model.get("note"));
    const foot = make("div", { class: "workbench-foot" }, this.status, note);
    this.root.append(this.toolbar.element, this.stage, foot, this.help);
    element.replaceChildren(this.root);
    for (const pane of this.panes) this.listen(pane);
    this.root.addEventListener("keydown", (event) => this.pressed(event));
    this.refresh = this.refresh.bind(this);
    const traits = ["slice_number", "coil", "view", "upright", "boxes"];
    this.changes = traits.map((name) => `change:${name}`).join(" ");
    model.on(this.changes, this.refresh);
    this.arrived = (key) => {
      if (this.panes.some((pane) => planeKey(this.about(pane, this.slice)) === key)) this.draw();
    };
    planes.listeners.add(this.arrived);
    this.resized = new ResizeObserver(() => this.arrange());
    this.resized.observe(this.stage);
    this.arrange();
    this.refresh();
  }

  /** Put panes into a row, or where they are many or there is little room, into several. */
  arrange() {
    const count = this.panes.length;
    const wanted = count > 4 ? Math.ceil(count / 2) : count;
    const columns = clamp(Math.floor(this.stage.clientWidth / 180), 1, wanted);
    this.stage.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    this.draw();
  }

  dispose() {
    clearInterval(this.playing);
    this.resized.disconnect();
    this.planes.listeners.delete(this.arrived);
    this.model.off(this.changes, this.refresh);
  }

  // What is shown

  get slice() {
    return this.model.get("slice_number");
  }

  get view() {
    const view = this.model.get("view");
    return this.coil === COMBINED && view !== "kspace" ? "magnitude" : view;
  }

  get coil() {
    return this.coils ? this.model.get("coil") : COMBINED;
  }

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  go(slice) {
    this.set("slice_number", clamp(slice, 0, this.slices - 1));
  }

  turn() {
    this.set("upright", !this.model.get("upright"));
  }

  stepCoil(step) {
    if (this.coils) this.set("coil", clamp(this.coil + step, COMBINED, this.coils - 1));
  }

  about(pane, slice) {
    const coil = pane.about.coils ? this.coil : COMBINED;
    return { pane: pane.index, domain: this.view === "kspace" ? "kspace" : "image", slice, coil };
  }

  /** Show what the model says: the slice at once, the others of its kind while nothing is asked. */
  refresh() {
    if (this.edition !== this.model.get("edition")) return; // about to be replaced
    this.toolbar.say();
    this.draw();
    const order = [...Array(this.slices).keys()];
    order.sort((a, b) => Math.abs(a - this.slice) - Math.abs(b - this.slice));
    this.planes.want(order.flatMap((near) => this.panes.map((pane) => this.about(pane, near))));
  }

  draw() {
    const coil = this.coil === COMBINED ? "" : `, coil ${this.coil}`;
    const what = `${VIEWS[this.view]}, slice ${this.slice}${coil}; ? shows the keys`;
    let said = "";
    for (const pane of this.panes) {
      const about = this.about(pane, this.slice);
      const plane = this.planes.get(about);
      pane.element.classList.toggle("workbench-waiting", !plane);
      if (plane) pane.paint(plane, this);
      else said ||= this.planes.failed.get(planeKey(about)) ?? "waiting for the kernel …";
      pane.canvas.setAttribute("aria-label", `${pane.about.name}, ${what}`);
    }
    if (!said) this.root.classList.add("workbench-live");
    this.status.textContent = said || this.place();
  }

  place() {
    const view = this.view === "kspace" || this.model.get("upright") ? "" : "as stored";
    const zoom = this.zoom === 1 ? "" : `zoom ${this.zoom.toFixed(1)}`;
    const at = this.panes[this.active].position(this.cursor);
    const cursor = at ? `row ${at.row}, column ${at.column}` : "";
    return [cursor, zoom, view].filter(Boolean).join(" · ") || "? shows the keys";
  }

  windowKey(pane) {
    const coil = this.coil === COMBINED || !pane.about.coils ? "combined" : "coil";
    return `${pane.about.scale} ${this.view} ${coil}`;
  }

  window(pane, values) {
    const key = this.windowKey(pane);
    if (!this.windows.has(key)) {
      const given = this.view === "magnitude" && this.coil === COMBINED && pane.about.window;
      this.windows.set(key, given || usualWindow(values, this.view));
    }
    return this.windows.get(key);
  }

  setWindow(key, level, width) {
    this.windows.set(key, [level - width / 2, level + width / 2]);
    this.draw();
  }

  changeWindow(wider, higher) {
    const key = this.windowKey(this.panes[this.active]);
    if (!this.windows.has(key)) return;
    const [low, high] = this.windows.get(key);
    this.setWindow(key, (low + high) / 2 + higher * (high - low), (high - low) * wider);
  }

  resetWindow(pane) {
    this.windows.delete(this.windowKey(pane));
    this.draw();
  }

  reset() {
    this.windows.clear();
    this.zoom = 1;
    this.lookAt(CENTRE);
  }

  zoomBy(factor, place) {
    const zoom = clamp(this.zoom * factor, 1, 40);
    const held = place ?? this.centre; // the point that stays where it is
    const part = this.zoom / zoom;
    this.zoom = zoom;
    this.lookAt({
      x: held.x + (this.centre.x - held.x) * part,
      y: held.y + (this.centre.y - held.y) * part,
    });
  }

  lookAt({ x, y }) {
    const half = 0.5 / this.zoom;
    this.centre = { x: clamp(x, half, 1 - half), y: clamp(y, half, 1 - half) };
    this.draw();
  }

  play() {
    clearInterval(this.playing);
    const tick = () => {
      const next = (this.slice + 1) % this.slices;
      const there = this.panes.every((pane) => this.planes.get(this.about(pane, next)));
      if (there) this.go(next); // what has not come yet is waited for
    };
    this.playing = this.playing ? 0 : setInterval(tick, PLAY_MS);
    this.toolbar.sayPlaying(Boolean(this.playing));
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
    (this.help.hidden ? this.panes[this.active].canvas : this.help).focus();
  }

  // Mouse and keys

  pressed(event) {
    const { key, ctrlKey, metaKey, altKey, shiftKey } = event;
    if (ctrlKey || metaKey || altKey || key === "Tab") return;
    event.stopPropagation(); // in JupyterLab's command mode a letter may delete a cell
    const field = event.target.closest("select, input, button");
    const action = ACTIONS[shiftKey && key.startsWith("Arrow") ? `Shift+${key}` : key];
    if (!action || (field && key !== "?" && key !== "Escape")) return;
    event.preventDefault();
    action(this);
  }

  moveCursor(columns, rows) {
    const pane = this.panes[this.active];
    const { shown } = pane;
    if (!shown) return;
    const { width, height } = shown.region;
    const from = pane.position(this.cursor) ?? { row: height >> 1, column: width >> 1 };
    const row = clamp(from.row + (shown.upsideDown ? -rows : rows), 0, height - 1);
    const column = clamp(from.column + columns, 0, width - 1);
    this.cursor = { x: (column + 0.5) / width, y: (row + 0.5) / height };
    this.byKey = true;
    const seen = shown.upsideDown ? 1 - this.cursor.y : this.cursor.y;
    const half = 0.45 / this.zoom; // what is zoomed follows the cursor to its edge
    this.lookAt({
      x: clamp(this.centre.x, this.cursor.x - half, this.cursor.x + half),
      y: clamp(this.centre.y, seen - half, seen + half),
    });
  }

  listen(pane) {
    const { canvas } = pane;
    canvas.addEventListener("focus", () => (this.active = pane.index));
    canvas.addEventListener("wheel", (event) => this.wheel(pane, event), { passive: false });
    canvas.addEventListener("dblclick", () => this.resetWindow(pane));
    canvas.addEventListener("pointerdown", (event) => this.grab(pane, event));
    canvas.addEventListener("pointermove", (event) => {
      this.active = pane.index;
      this.byKey = false;
      this.cursor = pane.under(event)?.stored;
      if (!this.grabbed) this.draw();
    });
    canvas.addEventListener("pointerleave", () => {
      if (this.grabbed || this.byKey) return;
      this.cursor = null;
      this.draw();
    });
  }

  wheel(pane, event) {
    event.preventDefault();
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 100 * event.deltaY;
    if (event.ctrlKey) {
      this.zoomBy(Math.exp(-pixels / 400), pane.under(event));
      return;
    }
    this.wheeled += pixels;
    if (Math.abs(this.wheeled) < NOTCH) return;
    this.go(this.slice + Math.sign(this.wheeled));
    this.wheeled = 0;
  }

  grab(pane, event) {
    if (event.button !== 0 || !pane.shown) return;
    const { canvas } = pane;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    const key = this.windowKey(pane);
    const [low, high] = this.windows.get(key);
    const { x, y } = this.centre;
    this.grabbed = (moved) => {
      const [right, down] = [moved.clientX - event.clientX, moved.clientY - event.clientY];
      if (event.shiftKey) {
        const scale = pane.at.scale / deviceRatio();
        const { width, height } = pane.shown.region;
        this.lookAt({ x: x - right / scale / width, y: y - down / scale / height });
      } else {
        const width = Math.max(1e-3, 1 + right / 200) * (high - low);
        this.setWindow(key, (low + high) / 2 + (down / 300) * (high - low), width);
      }
    };
    canvas.addEventListener("pointermove", this.grabbed);
    const release = () => {
      canvas.removeEventListener("pointermove", this.grabbed);
      this.grabbed = null;
    };
    canvas.addEventListener("lostpointercapture", release, { once: true });
  }
}

export default () => {
  let planes;
  return {
    initialize({ model }) {
      planes = new Planes(model);
    },
    render({ model, el }) {
      let view = new ViewerView(model, planes, el);
      const reopen = () => {
        view.dispose();
        view = new ViewerView(model, planes, el);
      };
      model.on("change:edition", reopen);
      return () => {
        model.off("change:edition", reopen);
        view.dispose();
      };
    },
  };
};
