// The form of a page: fields, buttons, and what the work shows. Plain HTML controls, so that labels,
// the tab order and the keyboard work as everywhere; colours are JupyterLab's own (form.css).
//
// Entries go back as the trait `values`. Buttons and secrets go as messages: a secret is in no
// trait, and its field is emptied as soon as it was taken.

let views = 0;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// ---- fields ------------------------------------------------------------------------------

class Fields {
  constructor(model, prefix) {
    this.model = model;
    this.prefix = prefix;
    this.controls = new Map();
    this.groups = [];
    this.timer = null;
  }

  draw(into) {
    for (const group of this.model.get("groups")) {
      const rows = group.fields.map((field) => this.row(field));
      const grid = element("div", { class: "wb-grid" }, ...rows);
      if (!group.folded) {
        into.append(element("fieldset", { class: "wb-group" },
          element("legend", {}, group.title), grid));
      } else {
        const note = element("span", { class: "wb-note" });
        const fold = element("details", { class: "wb-group" },
          element("summary", {}, group.title, " ", note), grid);
        this.groups.push({ fold, note, names: group.fields.map((field) => field.name) });
        into.append(fold);
      }
    }
  }

  row(field) {
    const id = `${this.prefix}-${field.name}`;
    const described = `${id}-help ${id}-error`;
    const error = element("div", { class: "wb-error", id: `${id}-error`, role: "alert" });
    const help = element("div", { class: "wb-help", id: `${id}-help` }, field.help);
    const control = this.control(field, id, described);
    const label = control.group
      ? element("span", { class: "wb-label", id: `${id}-label` }, field.label)
      : element("label", { class: "wb-label", for: id }, field.label);
    label.title = `parameter ${field.name}`;
    const beside = element("div", { class: "wb-control" }, control.element,
      field.unit ? element("span", { class: "wb-unit" }, field.unit) : null,
      field.look_up ? this.lookUp(field) : null);
    const row = field.kind === "bool"
      ? element("div", { class: "wb-field wb-tick" },
        element("div", { class: "wb-control" }, control.element, label), error, help)
      : element("div", { class: "wb-field" }, label, beside, error, help);
    this.controls.set(field.name, { ...control, field, row, error });
    return row;
  }

  control(field, id, described) {
    const shared = { id, "aria-describedby": described };
    const changed = () => this.changed();
    if (field.kind === "bool") {
      const box = element("input", { ...shared, type: "checkbox", onchange: changed });
      return { element: box, input: box, get: () => box.checked, set: (on) => { box.checked = on; } };
    }
    if (field.kind === "several") {
      const boxes = element("div", { class: "wb-several", id, role: "group",
        "aria-labelledby": `${id}-label`, "aria-describedby": described });
      const ticked = () => [...boxes.querySelectorAll("input:checked")].map((box) => box.value);
      const draw = (values) => {
        const chosen = values.split(",").map((name) => name.trim()).filter(Boolean);
        const names = [...new Set([...this.choices(field), ...chosen])];
        boxes.replaceChildren(...names.map((name) => element("label", {},
          element("input", { type: "checkbox", value: name, checked: chosen.includes(name),
            onchange: changed }), name)));
      };
      return { element: boxes, input: boxes, group: true, get: () => ticked().join(", "), set: draw };
    }
    if (field.kind === "choice") {
      const list = element("select", { ...shared, onchange: changed });
      const draw = (value) => {
        const options = [...new Set([...this.choices(field), value])].filter((each) => each !== "");
        const empty = field.optional
          ? [element("option", { value: "" }, field.placeholder || "–")] : [];
        list.replaceChildren(...empty, ...options.map((each) =>
          element("option", { value: each }, each)));
        list.value = value;
      };
      return { element: list, input: list, get: () => list.value, set: draw };
    }
    const listId = `${id}-list`;
    const input = element("input", { ...shared, type: "text", spellcheck: "false",
      autocomplete: "off", placeholder: field.placeholder, oninput: changed, onchange: changed,
      inputmode: field.kind === "number" ? "decimal" : null, list: field.suggests ? listId : null });
    if (!field.suggests) return { element: input, input, get: () => input.value,
      set: (value) => { if (input.value !== value) input.value = value; } };
    const list = element("datalist", { id: listId });
    const draw = (value) => {
      if (input.value !== value) input.value = value;
      list.replaceChildren(...this.choices(field).map((each) => element("option", { value: each })));
    };
    return { element: element("div", { class: "wb-suggest" }, input, list), input,
      get: () => input.value, set: draw };
  }

  lookUp(field) {
    return element("button", { type: "button", class: "wb-small",
      title: `ask Azure for what there is (${field.label})`,
      onclick: () => this.model.send({ look_up: field.name, values: this.read() }) }, "Look up");
  }

  choices(field) {
    return this.model.get("choices")[field.name] || [];
  }

  read() {
    return Object.fromEntries([...this.controls].map(([name, control]) => [name, control.get()]));
  }

  changed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), 120);
  }

  send() {
    clearTimeout(this.timer);
    this.model.set("values", this.read());
    this.model.save_changes();
  }

  // Fill the controls; leave the one that a person is typing in alone.
  fill() {
    const values = this.model.get("values");
    for (const [name, control] of this.controls) {
      if (control.input !== document.activeElement && name in values) control.set(values[name]);
    }
  }

  refill(name) {
    const control = this.controls.get(name);
    if (control) control.set(control.get());
  }

  showErrors() {
    const errors = this.model.get("errors");
    for (const [name, { error, input, row }] of this.controls) {
      const text = errors[name] || "";
      if (error.textContent !== text) error.textContent = text;
      error.hidden = !text;
      row.classList.toggle("wb-wrong", Boolean(text));
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
    const values = this.model.get("values");
    for (const { fold, note, names } of this.groups) {
      const changed = names.filter((name) =>
        values[name] !== this.controls.get(name).field.usual).length;
      note.textContent = changed ? `${changed} changed` : "";
      if (names.some((name) => errors[name])) fold.open = true;
    }
  }

  enable(on) {
    for (const { row } of this.controls.values()) {
      for (const control of row.querySelectorAll("input, select, button")) control.disabled = !on;
    }
  }
}

// ---- secrets -----------------------------------------------------------------------------

function drawSecrets(model, prefix, into) {
  into.replaceChildren(...model.get("secrets").filter((secret) => secret.wanted).map((secret) => {
    const id = `${prefix}-${secret.name}`;
    const give = (text) => { if (text.trim()) model.send({ secret: secret.name, text }); };
    const input = element("input", { id, type: "password", autocomplete: "off",
      placeholder: "paste it here", "aria-describedby": `${id}-help ${id}-error` });
    const take = () => { const text = input.value; input.value = ""; give(text); };
    input.addEventListener("change", take);
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") take(); });
    // A password field drops the line breaks of what is pasted.
    input.addEventListener("paste", (event) => {
      const text = event.clipboardData.getData("text");
      if (text.includes("\n")) { event.preventDefault(); give(text); }
    });
    const file = element("input", { type: "file", id: `${id}-file`, "aria-describedby": `${id}-help`,
      onchange: async () => {
        const [chosen] = file.files;
        if (!chosen) return;
        const bytes = await chosen.arrayBuffer();
        file.value = "";
        model.send({ secret: secret.name }, undefined, [bytes]);
      } });
    return element("div", { class: `wb-field${secret.error ? " wb-wrong" : ""}` },
      element("label", { class: "wb-label", for: id }, secret.label),
      element("div", { class: "wb-control" }, input,
        secret.file ? element("label", { class: "wb-file", for: `${id}-file` }, "or its file:") : null,
        secret.file ? file : null),
      element("div", { class: "wb-held", role: "status" }, secret.held,
        secret.forget ? element("button", { type: "button", class: "wb-small",
          onclick: () => model.send({ forget: secret.name }) }, "Forget it") : null),
      element("div", { class: "wb-error", id: `${id}-error`, role: "alert" }, secret.error),
      element("div", { class: "wb-help", id: `${id}-help` }, secret.help));
  }));
}

// ---- what the work shows ------------------------------------------------------------------

function drawOutputs(model, into) {
  const wanted = model.get("outputs");
  const present = new Map([...into.children].map((child) => [child.dataset.key, child]));
  into.replaceChildren(...wanted.map((output) => {
    const key = `${output.kind} ${output.data.length} ${output.data.slice(-80)} ${output.name}`;
    if (present.has(key)) return present.get(key);
    let made;
    if (output.kind === "image/png") {
      made = element("img", { src: `data:image/png;base64,${output.data}`, alt: output.name || "figure" });
    } else if (output.kind === "text/html") {
      made = element("div", { class: "wb-html" });
      made.innerHTML = output.data; // the package's own tables, escaped where they are made
    } else {
      made = element("pre", {}, output.data);
    }
    made.dataset.key = key;
    return made;
  }));
}

function drawProgress(model, into) {
  into.replaceChildren(...model.get("progress").map(({ title, share, line }) =>
    element("div", { class: "wb-progress" },
      element("progress", { max: 1, value: share, "aria-label": title }),
      element("span", {}, line))));
}

function drawFailure(model, into) {
  const { message, trace } = model.get("failure");
  into.replaceChildren();
  if (!message) return;
  into.append(element("div", { class: "wb-failure", role: "alert" }, message));
  if (trace) {
    into.append(element("details", {}, element("summary", {}, "Details for programmers"),
      element("pre", {}, trace)));
  }
}

function drawLog(model, fold, lines) {
  const log = model.get("log");
  fold.hidden = !log.length;
  const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
  lines.textContent = log.join("\n");
  if (atEnd) lines.scrollTop = lines.scrollHeight;
}

// ---- the whole ----------------------------------------------------------------------------

function render({ model, el }) {
  const prefix = `wb${++views}`;
  const fields = new Fields(model, prefix);
  const parts = Object.fromEntries(
    ["fields", "secrets", "general", "progress", "failure", "outputs"].map((name) =>
      [name, element("div", { class: `wb-part-${name}` })]));
  parts.general.setAttribute("role", "alert");
  // A form that was saved with its notebook has no kernel behind it.
  let unheard = null;
  const act = (action) => () => {
    model.send({ action, values: fields.read() });
    clearTimeout(unheard);
    unheard = setTimeout(() => {
      status.textContent = "No answer: the kernel is at work on a cell, or no longer knows this "
        + "form; then run the notebook again.";
    }, 4000);
  };
  const plan = element("button", { type: "button", onclick: act("plan") }, "Plan");
  const start = element("button", { type: "button", class: "wb-main", onclick: act("start") });
  const cancel = element("button", { type: "button", onclick: () => model.send({ action: "cancel" }) });
  const board = element("button", { type: "button",
    onclick: () => model.send({ action: "tensorboard" }) });
  const boardLink = element("span", { class: "wb-note" });
  const status = element("span", { class: "wb-status", role: "status" });
  const lines = element("pre", { class: "wb-lines", tabindex: 0, "aria-label": "what the run prints" });
  const log = element("details", { class: "wb-log", hidden: true, open: true },
    element("summary", {}, "What it prints"), lines);
  const command = element("pre", { class: "wb-lines", tabindex: 0, "aria-label": "the command" });
  const copied = element("span", { class: "wb-note", role: "status" });
  const copy = element("button", { type: "button", class: "wb-small", onclick: async () => {
    try {
      await navigator.clipboard.writeText(model.get("command"));
      copied.textContent = "copied";
    } catch {
      // Without https a page may not write to the clipboard: select it for Ctrl-C.
      getSelection().selectAllChildren(command);
      copied.textContent = "selected: press Ctrl-C";
    }
    setTimeout(() => { copied.textContent = ""; }, 4000);
  } }, "Copy");
  fields.draw(parts.fields);

  // JupyterLab's keys (Enter, D D, arrows) are for cells, not for what has the focus in here.
  const keepKeys = (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key === "Enter") event.stopPropagation();
  };
  const root = element("section", { class: "wb-form", "aria-label": model.get("title"),
    onkeydown: keepKeys },
    parts.secrets, parts.fields, parts.general,
    element("div", { class: "wb-actions" }, plan, start, cancel, board, boardLink, status),
    parts.progress, parts.failure, parts.outputs, log,
    element("details", { class: "wb-command", open: true },
      element("summary", {}, "The same without a browser"), command,
      element("div", {}, copy, " ", copied)));
  el.append(root);

  const showErrors = () => {
    fields.showErrors();
    parts.general.textContent = model.get("errors")[""] || "";
    parts.general.hidden = !parts.general.textContent;
    showPhase();
  };
  const showPhase = () => {
    const phase = model.get("phase");
    const busy = ["planning", "running", "cancelling"].includes(phase);
    if (busy) clearTimeout(unheard);
    const wrong = Object.keys(model.get("errors")).length > 0;
    fields.enable(!busy);
    for (const control of parts.secrets.querySelectorAll("input, button")) control.disabled = busy;
    plan.disabled = busy || wrong;
    start.disabled = busy || wrong;
    start.textContent = model.get("start");
    // The focus must not fall out of the form when its button goes away.
    const held = document.activeElement;
    cancel.hidden = !busy;
    cancel.textContent = phase === "cancelling" ? "End it at once" : "Cancel";
    if (busy && (held === start || held === plan)) cancel.focus();
    if (!busy && held === cancel) start.focus();
    root.dataset.phase = phase;
  };
  const showBoard = () => {
    const { offered, url, note } = model.get("tensorboard");
    board.hidden = !offered;
    board.textContent = url || note ? "Stop TensorBoard" : "TensorBoard";
    boardLink.replaceChildren(...(url
      ? [element("a", { href: url, target: "_blank", rel: "noopener" }, "open TensorBoard")]
      : [note || ""]));
  };
  const showSecrets = () => { drawSecrets(model, prefix, parts.secrets); showPhase(); };
  const showCommand = () => { command.textContent = model.get("command"); };
  const showStatus = () => { status.textContent = model.get("status"); };
  const handlers = {
    values: () => { fields.fill(); fields.showErrors(); },
    errors: showErrors,
    choices: () => { for (const name of fields.controls.keys()) fields.refill(name); },
    secrets: showSecrets,
    phase: showPhase,
    start: showPhase,
    status: showStatus,
    progress: () => drawProgress(model, parts.progress),
    failure: () => drawFailure(model, parts.failure),
    outputs: () => drawOutputs(model, parts.outputs),
    log: () => drawLog(model, log, lines),
    command: showCommand,
    tensorboard: showBoard,
  };
  for (const [name, handler] of Object.entries(handlers)) {
    model.on(`change:${name}`, handler);
    handler();
  }
  return () => {
    for (const [name, handler] of Object.entries(handlers)) model.off(`change:${name}`, handler);
  };
}

export default { render };
