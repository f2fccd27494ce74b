"""A form's HTML, and the few lines of JavaScript that it needs in JupyterLab."""

from html import escape

# A notebook that is opened without its kernel has no form, only the line "model not found" in its
# place. Style alone hides that line and shows this, with what the form did; where there is a form
# it is the other way round.
ENDED = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .wb-record):not(:has(.wb-form, .wb-record)),
.jp-OutputArea:has(.wb-form) > .jp-OutputArea-child:has(.wb-record) {
  display: none;
}
</style><p class="wb-record">The form ended with its kernel: run the notebook again for a new one.
What it did is kept here.</p>"""

# JupyterLab's keys (D D, arrows) are for cells, not for what has the focus in a form. After "Run
# All" JupyterLab turns to the cell that is active then: a form that is new makes its cell that one.
WHEN_SHOWN = (
    "const form = this.closest('.wb-form'), cell = form.closest('.jp-Cell');"
    " form.onkeydown = (event) => {"
    " if (!(event.ctrlKey || event.metaKey) || event.key === 'Enter') event.stopPropagation(); };"
    " form.addEventListener('click', (event) => {"  # a second Enter then presses nothing
    " const status = form.querySelector('.wb-told');"
    " if (status && event.target.closest('.wb-work')) { status.tabIndex = -1; status.focus(); } });"
    " const shown = (window.workbenchForms ??= new Set());"
    " if (cell && !shown.has('{id}')) setTimeout(() => {"
    " if (!form.isConnected) return; shown.add('{id}');"  # it was drawn anew meanwhile
    " if (form.parentElement.querySelector('.jupyter-widgets-disconnected')) return;"  # stored
    " cell.querySelector('.jp-InputPrompt')"
    "?.dispatchEvent(new MouseEvent('mousedown', { bubbles: true, button: 0 }));"
    " cell.scrollIntoView({ block: 'start' }); }, 50);"
)
# Style shows it where the form's kernel has ended. Its button runs the cells down to the form's, as
# Shift+Enter does; no other way into JupyterLab is open to what a notebook shows.
GONE = """<div class="wb-gone" role="alert">The kernel was restarted, and this form ended with it.
<button type="button" class="jupyter-button" onclick="
  const last = this.closest('.jp-Cell'), notebook = last.closest('.jp-Notebook');
  const cells = [...notebook.querySelectorAll('.jp-Cell')];
  cells[0].querySelector('.jp-InputPrompt')
    .dispatchEvent(new MouseEvent('mousedown', { bubbles: true, button: 0 }));
  for (let n = 0; n <= cells.indexOf(last); n += 1)
    notebook.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', code: 'Enter', keyCode: 13,
      shiftKey: true, bubbles: true }));
">Run the cells down to here again</button></div>"""
WAITING = (
    '<p style="color: var(--jp-ui-font-color2); font-style: italic">'
    "This cell fills when the form above has done its work: press <b>{start}</b> there. Where the "
    "page was reloaded meanwhile, run this cell again.</p>"
)


def alert(text: str, kind: str = "wb-error") -> str:
    """Write what is wrong, which screen readers say at once; nothing for no text."""
    return text and f'<div class="{kind}" role="alert">{escape(text)}</div>'


def details(state: str, title: str, text: str, kind: str) -> str:
    """Write a part that folds; nothing for no text."""
    inner = f'<div class="{kind}"><pre tabindex="0" aria-label="{title}">{escape(text)}</pre></div>'
    return text and f"<details {state}><summary>{title}</summary>{inner}</details>"
