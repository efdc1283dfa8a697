// Copy buttons and live parts. Without this script the page works: texts are selected by hand, and pages are reloaded.
"use strict";

function showCopyButtons(root) {
  for (const button of root.querySelectorAll("button.copy[hidden]")) {
    button.hidden = false;
  }
}

async function copy(button) {
  const source = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Browsers offer the clipboard only to secure contexts. The selected text can be copied by the keyboard.
    getSelection().selectAllChildren(source);
    if (!document.execCommand("copy")) return;
  }
  const label = button.textContent;
  if (label === button.dataset.copied) return;
  button.textContent = button.dataset.copied;
  setTimeout(() => { button.textContent = label; }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.copy");
  if (button) copy(button);
});
document.addEventListener("htmx:load", (event) => showCopyButtons(event.detail.elt));
showCopyButtons(document);

// A live part shows what its event stream sends. There is no stream while the page is hidden, and what a person reads by
// keyboard stays as it is.
function follow(part) {
  let stream;
  function connect() {
    stream = new EventSource(part.dataset.live);
    stream.addEventListener("message", (event) => {
      if (!part.contains(document.activeElement)) part.innerHTML = event.data;
    });
    stream.addEventListener("error", () => {
      // After a refused connection, some browsers do not try again.
      if (stream.readyState === EventSource.CLOSED) setTimeout(showOrHide, 5000);
    });
  }
  function showOrHide() {
    stream?.close();
    if (!document.hidden) connect();
  }
  document.addEventListener("visibilitychange", showOrHide);
  showOrHide();
}

for (const part of document.querySelectorAll("[data-live]")) follow(part);
