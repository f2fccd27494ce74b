"""The viewer in a page of its own, with a model that tells of changes in an order of its own."""

import pytest

from workbench.views.viewer.viewer import Viewer

OPEN = """
async ([code, order]) => {
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const widget = (await import(url)).default();
  const about = { name: "target", slices: 1, coils: 0, scale: "image", window: null, crop: null };
  about.colours = about.phaseColours = "0".repeat(6 * 256);
  const opened = (edition) => {
    const data = new DataView(new Float32Array(4).fill(edition).buffer);
    const plane = { pane: 0, domain: "image", slice: 0, coil: -1, edition, shape: [2, 2] };
    return { edition, first: { planes: [{ ...plane, complex: false, data }] } };
  };
  const state = { title: "", note: "", slice_number: 0, coil: -1, view: "magnitude" };
  Object.assign(state, { upright: true, boxes: [], panes: [about] }, opened(1));
  const heard = new Map();
  const change = (values) => {
    Object.assign(state, values);
    for (const name of Object.keys(values))
      for (const call of [...(heard.get(`change:${name}`) ?? [])]) call();
  };
  const model = {
    get: (name) => state[name],
    set: (name, value) => change({ [name]: value }),
    on: (events, call) =>
      events.split(" ").forEach((event) => heard.set(event, [...(heard.get(event) ?? []), call])),
    off: (events, call) =>
      events.split(" ").forEach((event) =>
        heard.set(event, heard.get(event).filter((each) => each !== call))),
    save_changes() {},
    send() {},
  };
  widget.initialize({ model });
  widget.render({ model, el: document.body });
  const highest = () => document.querySelector(".workbench-scale > :last-child").textContent;
  const before = highest();
  const next = opened(2);
  change(Object.fromEntries(order.map((name) => [name, next[name]])));
  return [before, highest()];
}
"""


@pytest.mark.parametrize("order", [["first", "edition"], ["edition", "first"]])
def test_other_panes_are_shown_at_once_in_whatever_order_their_parts_come(browser, order):
    page = browser.new_page()
    assert page.evaluate(OPEN, [Viewer._esm, order]) == ["1.00", "2.00"]
    page.close()
