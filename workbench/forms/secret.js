// A field for a secret. What is typed, pasted or uploaded goes to the kernel as a message and the
// field is emptied: a trait would be stored with the notebook's widget state.

let fields = 0;

function render({ model, el }) {
  const id = `wb-secret-${(fields += 1)}`;
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(label, { className: "wb-label", htmlFor: id, textContent: model.get("label") });
  Object.assign(input, {
    id, type: "password", autocomplete: "off", placeholder: "paste it here",
  });
  const give = (text) => { if (text.trim()) model.send({ text }); };
  const take = () => { const text = input.value; input.value = ""; give(text); };
  input.addEventListener("change", take);
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") take(); });
  // A password field drops the line breaks of what is pasted.
  input.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (text.includes("\n")) { event.preventDefault(); give(text); }
  });
  const inputs = [input];
  el.append(label, input);
  if (model.get("file")) {
    const file = document.createElement("input");
    Object.assign(file, { id: `${id}-file`, type: "file" });
    file.addEventListener("change", async () => {
      const bytes = await file.files[0].arrayBuffer();
      file.value = "";
      model.send({}, undefined, [bytes]);
    });
    const named = document.createElement("label");
    Object.assign(named, { className: "wb-file", htmlFor: file.id, textContent: "or its file:" });
    el.append(named, file);
    inputs.push(file);
  }
  el.classList.add("wb-secret");
  const enable = () => { for (const each of inputs) each.disabled = model.get("disabled"); };
  model.on("change:disabled", enable);
  enable();
}

export default { render };
