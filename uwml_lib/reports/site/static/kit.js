// What scrolls sideways can be scrolled by keyboard; the lines of a long signature, which Sphinx writes as a list without terms, are none.
for (const part of document.querySelectorAll("dt.sig dl, dt.sig dl > dd")) part.setAttribute("role", "none");

const scrollable = () => {
  for (const block of document.querySelectorAll('mjx-container[display="true"]')) {
    if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
  }
};
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(scrollable));
window.addEventListener("resize", scrollable);
