// One pane on the page: caption, canvas, colour bar, and the value under the cursor. What all panes
// share (view, zoom, cursor, windows) is the viewer's; each method that needs it is handed the viewer.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

function deviceRatio() {
  return globalThis.devicePixelRatio || 1;
}

class PaneView {
  constructor(about, index) {
    this.about = about;
    this.index = index;
    this.colours = { image: colourTable(about.colours), phase: colourTable(about.phaseColours) };
    this.colours.kspace = Uint32Array.from({ length: 256 }, (_, i) => (255 << 24) | (i * 0x10101));
    this.canvas = make("canvas", { tabindex: "0", role: "application" });
    this.canvas.setAttribute("aria-roledescription", "MR image");
    this.picture = document.createElement("canvas"); // one pixel a value; never on the page
    this.readout = make("span", { class: "workbench-readout" });
    this.low = make("span");
    this.high = make("span");
    this.bar = make("canvas", { width: "256", height: "1", "aria-hidden": "true" });
    const caption = make("figcaption", {}, make("strong", {}, about.name), this.readout);
    const scale = make("div", { class: "workbench-scale" }, this.low, this.bar, this.high);
    this.element = make("figure", {}, caption, this.canvas, scale);
  }

  /** Paint a plane with all that lies over it. */
  paint(plane, viewer) {
    const { view } = viewer;
    const values = valuesOf(plane, view);
    const window = viewer.window(this, values);
    const colours = this.colours[view] ?? this.colours.image;
    const upsideDown = view !== "kspace" && viewer.model.get("upright");
    const region = this.region(plane.shape, viewer.whole || view === "kspace");
    this.shown = { plane, region, upsideDown };
    colourInto(this.picture, values, plane.shape[1], region, window, colours, upsideDown);
    this.drawBar(window, colours, { kspace: " dB", phase: " rad" }[view] ?? "");
    this.fit(viewer);
    const context = this.canvas.getContext("2d");
    const { left, top, scale } = this.at;
    context.imageSmoothingEnabled = scale < 1;
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.picture, left, top, region.width * scale, region.height * scale);
    if (view !== "kspace" && viewer.boxes) this.drawBoxes(context, viewer.model);
    this.drawCursor(context, viewer);
  }

  /** Return the part of a plane that is shown: all of it, or the centre that it is cropped to. */
  region(shape, whole) {
    const [height, width] = whole || !this.about.crop ? shape : this.about.crop;
    const [top, left] = [Math.floor((shape[0] - height) / 2), Math.floor((shape[1] - width) / 2)];
    return { top, left, height, width };
  }

  drawBar(window, colours, unit) {
    const context = this.bar.getContext("2d");
    const image = context.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(colours);
    context.putImageData(image, 0, 0);
    const [low, high] = window.map((value) => `${written(value, 3)}${unit}`);
    this.low.textContent = low;
    this.high.textContent = high;
  }

  /** Give the canvas its size, and find where on it the picture lies, in device pixels. */
  fit({ zoom, centre, panes }) {
    const { canvas } = this;
    const { region } = this.shown;
    const tallest = panes[0].shown?.region ?? region; // all canvases are as high as the first
    const high = clamp(canvas.clientWidth * (tallest.height / tallest.width), 120, 560);
    const [width, height] = [canvas.clientWidth, high].map((size) => Math.round(size * deviceRatio()));
    canvas.style.height = `${Math.round(high)}px`;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const scale = Math.min(width / region.width, height / region.height) * zoom;
    const left = width / 2 - centre.x * region.width * scale;
    const top = height / 2 - centre.y * region.height * scale;
    this.at = { scale, left, top };
  }

  drawBoxes(context, model) {
    const { at, about, shown } = this;
    const { region, upsideDown, plane } = shown;
    // Boxes count from the corner of the cropped image, whether or not all of it is shown.
    const crop = about.crop ?? plane.shape;
    const down = Math.floor((region.height - crop[0]) / 2);
    const right = Math.floor((region.width - crop[1]) / 2);
    const size = 11 * deviceRatio();
    context.font = `${size}px sans-serif`;
    for (const box of model.get("boxes")) {
      if (box.slice !== model.get("slice_number")) continue;
      const row = upsideDown ? region.height - (box.y + down) - box.height : box.y + down;
      const [x, y] = [at.left + (box.x + right) * at.scale, at.top + row * at.scale];
      const label = y > 1.5 * size ? y - 4 : y + box.height * at.scale + size;
      for (const [colour, width] of [["#000", 3], ["#F0E442", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.strokeRect(x, y, box.width * at.scale, box.height * at.scale);
      }
      context.strokeStyle = "#000";
      context.lineWidth = 3;
      context.strokeText(box.label, x, label);
      context.fillStyle = "#F0E442";
      context.fillText(box.label, x, label);
    }
  }

  /** Return the row and column under the cursor, as stored, from the corner of what is shown. */
  position(cursor) {
    if (!this.shown || !cursor) return null;
    const { height, width } = this.shown.region;
    const [row, column] = [Math.floor(cursor.y * height), Math.floor(cursor.x * width)];
    return row >= 0 && column >= 0 && row < height && column < width ? { row, column } : null;
  }

  drawCursor(context, viewer) {
    const position = this.position(viewer.cursor);
    this.readout.textContent = position ? this.value(position, viewer.view) : "";
    if (!position || (this.index === viewer.active && !viewer.byKey)) return;
    const { at, shown } = this;
    const row = shown.upsideDown ? shown.region.height - 1 - position.row : position.row;
    const [x, y] = [at.left + (position.column + 0.5) * at.scale, at.top + (row + 0.5) * at.scale];
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 4 * dx, y + 4 * dy);
      context.lineTo(x + 12 * dx, y + 12 * dy);
    }
    for (const [colour, width] of [["#000", 4], ["#56B4E9", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }

  /** Write the value under the cursor: the array's own, which is what was sent. */
  value({ row, column }, view) {
    const { plane, region } = this.shown;
    const at = (row + region.top) * plane.shape[1] + column + region.left;
    const shown = valuesOf(plane, view)[at];
    if (view === "phase") return `${written(shown)} rad`;
    if (view !== "kspace") return written(shown);
    const { data, complex } = plane;
    const magnitude = complex ? Math.hypot(data[2 * at], data[2 * at + 1]) : data[at];
    return `${written(magnitude)} (${shown.toFixed(1)} dB)`;
  }

  /** Return a mouse's place as shares of the picture, as seen and (``stored``) as stored. */
  under(event) {
    const { at, shown } = this;
    if (!shown) return null;
    const box = this.canvas.getBoundingClientRect();
    const along = (pixels, start, size) => (pixels * deviceRatio() - start) / at.scale / size;
    const x = along(event.clientX - box.left, at.left, shown.region.width);
    const y = along(event.clientY - box.top, at.top, shown.region.height);
    return { x, y, stored: { x, y: shown.upsideDown ? 1 - y : y } };
  }
}
