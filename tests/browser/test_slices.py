import re

import torch
from playwright.sync_api import expect

from tests.browser.viewer_page import ViewerPage
from workbench.models import VarNet

RECONSTRUCTED = """
from workbench.recon.reconstruction_plan import plan_reconstruction, reconstruct
from workbench.recon.results import Results
plan = plan_reconstruction(weights="slices.pt", local_dataset="brain_multicoil")
for line in reconstruct(plan):
    print(line)"""
BROWSER = """
from workbench.views.annotations import read_annotations
from workbench.views.viewer.slice_browser import SliceBrowser
SliceBrowser(Results(plan.folder), "psnr", read_annotations("findings.csv"))"""


def test_slice_chosen_in_the_sorted_list_opens_in_the_viewer(open_notebook, lab):
    network = VarNet(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2)
    torch.save(network.state_dict(), lab.project / "slices.pt")
    volumes = sorted((lab.project / "datasets/brain_multicoil/multicoil_val").glob("*.h5"))
    lines = [f"{path.stem},{n},No,10,10,12,9,Mass" for path in volumes for n in range(4)]
    (lab.project / "findings.csv").write_text(
        "\n".join(["file,slice,study_level,x,y,width,height,label", *lines])
    )
    notebook = open_notebook([RECONSTRUCTED, BROWSER])
    notebook.run_all()
    cell = notebook.cell("SliceBrowser(Results")
    slices = cell.get_by_label("slice", exact=True).first
    names = [name.replace("\xa0", " ") for name in slices.locator("option").all_text_contents()]
    assert len(names) == 8
    figures = [float(name.split("PSNR ")[1].split(" ")[0]) for name in names]
    assert figures == sorted(figures)
    for place in (5, 0):
        name = names[place]
        slices.select_option(index=place)
        volume, number = name.split(":")[0].split(", slice ")
        viewer = ViewerPage(cell)
        slice_shown = viewer.root.locator(".workbench-slice")
        expect(slice_shown).to_have_text(re.compile(rf"^\s*{number}\b"))
        chosen = cell.get_by_label("volume").evaluate("(e) => e.selectedOptions[0].text")
        assert chosen.startswith(volume)
    cell.get_by_label("best first").check()
    notebook.page.wait_for_function(
        "([list, name]) => list.options[0].text.replaceAll('\\xa0', ' ') === name",
        arg=[slices.element_handle(), names[-1]],
    )
