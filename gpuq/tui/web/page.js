// Keys go to the screen without a click, from when there is one.
new MutationObserver((changes, observer) => {
  if (document.body.classList.contains("-loaded")) {
    observer.disconnect();
    document.querySelector(".xterm-helper-textarea").focus();
  }
}).observe(document.documentElement, {
  attributeFilter: ["class"],
  subtree: true,
});
