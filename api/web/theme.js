// Runs before the first paint (a classic script in the head), so that a remembered theme never flashes the other one.
try {
  const theme = localStorage.getItem("grapnel.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden: the system's theme then stands.
}
