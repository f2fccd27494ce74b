// What the viewer has of the data: planes (one slice of one pane, of one coil or of all combined),
// asked for once, and the numbers and colours that are made of them. pane.js and viewer.js follow.

const BUDGET = 512e6; // bytes of planes that are kept; what was looked at longest ago goes first
const IN_FLIGHT = 2;
const COMBINED = -1;
const UNKNOWN = 0xff808080; // grey, where a value is not a number

function planeKey({ pane, domain, slice, coil }) {
  return `${pane} ${domain} ${slice} ${coil}`;
}

/** Planes by key, and the requests for those that are missing. One for all views of a widget. */
class Planes {
  constructor(model) {
    this.model = model;
    this.listeners = new Set();
    this.forget();
    model.on("msg:custom", (message, buffers) => this.receive(message, buffers));
    model.on("change:first", () => this.takeFirst());
    this.takeFirst();
  }

  /** Begin anew, with the panes of the model's edition. */
  forget() {
    this.edition = this.model.get("edition");
    this.kept = new Map();
    this.failed = new Map();
    this.waiting = new Set();
    this.queue = [];
    this.bytes = 0;
  }

  /** Take the planes that came with the panes, and leave none of them in the widget's state. */
  takeFirst() {
    const planes = this.model.get("first").planes ?? [];
    if (!planes.length) return;
    if (this.edition !== this.model.get("edition")) this.forget();
    for (const plane of planes) this.keep(plane, plane.data);
    this.model.set("first", {});
    this.model.save_changes();
  }

  receive(message, buffers) {
    if (message.edition !== this.edition) return;
    const key = planeKey(message);
    this.waiting.delete(key);
    if (message.kind === "plane") this.keep(message, buffers[0]);
    else this.failed.set(key, message.text);
    for (const listener of this.listeners) listener(key);
    this.ask();
  }

  keep(about, data) {
    const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
    const plane = { shape: about.shape, complex: about.complex, data: new Float32Array(bytes) };
    this.kept.set(planeKey(about), plane);
    this.bytes += plane.data.byteLength;
    for (const [key, old] of this.kept) {
      if (this.bytes <= BUDGET || old === plane) break;
      this.kept.delete(key);
      this.bytes -= old.data.byteLength;
    }
  }

  get(about) {
    const key = planeKey(about);
    const plane = this.kept.get(key);
    if (plane) {
      this.kept.delete(key); // to the end: just looked at
      this.kept.set(key, plane);
    }
    return plane;
  }

  /** Ask for planes, the most wanted first, as far as they fit; earlier wishes are forgotten. */
  want(wishes) {
    const known = this.kept.values().next().value;
    const most = known ? Math.floor(BUDGET / 2 / known.data.byteLength) : wishes.length;
    this.queue = wishes.slice(0, Math.max(most, 8));
    this.ask();
  }

  ask() {
    while (this.waiting.size < IN_FLIGHT && this.queue.length) {
      const about = this.queue.shift();
      const key = planeKey(about);
      if (this.kept.has(key) || this.waiting.has(key) || this.failed.has(key)) continue;
      this.waiting.add(key);
      this.model.send({ kind: "plane", edition: this.edition, ...about });
    }
  }
}

/** Return a plane's numbers in a view, Float32Array (H * W). In k-space: dB below the largest. */
function valuesOf(plane, view) {
  if (plane.view !== view) {
    plane.view = view;
    plane.values = derive(plane, view);
  }
  return plane.values;
}

function derive({ data, complex, shape }, view) {
  const magnitude = view === "magnitude" || view === "kspace";
  if (!complex && view !== "kspace") return data;
  const values = new Float32Array(shape[0] * shape[1]);
  for (let i = 0; i < values.length; i++) {
    const real = complex ? data[2 * i] : data[i];
    const imaginary = complex ? data[2 * i + 1] : 0;
    if (magnitude) values[i] = Math.sqrt(real * real + imaginary * imaginary);
    else if (view === "phase") values[i] = Math.atan2(imaginary, real);
    else values[i] = view === "real" ? real : imaginary;
  }
  if (view !== "kspace") return values;
  let largest = 0;
  for (const value of values) if (value > largest && value < Infinity) largest = value;
  const offset = 20 * Math.log10(largest || 1);
  for (let i = 0; i < values.length; i++) values[i] = 20 * Math.log10(values[i]) - offset;
  return values;
}

/** Return the window to begin with: what nearly all values lie in. */
function usualWindow(values, view) {
  if (view === "phase") return [-Math.PI, Math.PI];
  const step = Math.max(1, Math.floor(values.length / 20000));
  const some = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) some.push(values[i]);
  some.sort((a, b) => a - b);
  const share = (part) => some[Math.min(some.length - 1, Math.floor(part * some.length))] ?? 0;
  if (view === "kspace") return [Math.min(-20, Math.max(-100, share(0.1))), 0];
  if (view === "magnitude") return [Math.min(0, share(0.003)), share(0.997) || 1];
  const largest = Math.max(Math.abs(share(0.003)), Math.abs(share(0.997))) || 1;
  return [-largest, largest];
}

/** Return 256 colours as the 32-bit numbers that an image holds (R lowest). */
function colourTable(hex) {
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const [red, green, blue] = [0, 2, 4].map((at) => parseInt(hex.substr(6 * i + at, 2), 16));
    return (255 << 24) | (blue << 16) | (green << 8) | red;
  });
}

/** Colour a region of an image into a canvas of its size, upside down if asked. */
function colourInto(canvas, values, width, region, window, table, upsideDown) {
  const { top, left, height: rows, width: columns } = region;
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const [low, high] = window;
  const scale = 256 / (high - low || 1);
  for (let row = 0; row < rows; row++) {
    let from = (top + row) * width + left;
    let to = (upsideDown ? rows - 1 - row : row) * columns;
    for (let column = 0; column < columns; column++) {
      const level = (values[from++] - low) * scale;
      const known = level <= 255 ? (level > 0 ? level | 0 : 0) : 255;
      pixels[to++] = Number.isNaN(level) ? UNKNOWN : table[known];
    }
  }
  context.putImageData(image, 0, 0);
}

/** Write a number as people read it. */
function written(value, digits = 5) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  const large = size < 1e-2 || size >= 1e5;
  return large ? value.toExponential(digits - 1) : value.toPrecision(digits);
}
