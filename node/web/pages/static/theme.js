// Before the first picture: the theme that was chosen here, else what the system prefers.
"use strict";
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage is not allowed here */ }
