// Notebooks: a button on every code cell that copies its text; and what scrolls sideways can be scrolled by keyboard.
for (const cell of document.querySelectorAll(".jp-CodeCell .jp-InputArea-editor")) {
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = cell.querySelector("pre");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {  // a browser that allows it to secure pages alone
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  cell.append(button);
}

const WIDE = 'mjx-container[display="true"], .jp-OutputArea-output, .jp-MarkdownOutput';
const scrollable = () => {
  for (const block of document.querySelectorAll(WIDE)) {
    if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
  }
};
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(scrollable));
window.addEventListener("resize", scrollable);
