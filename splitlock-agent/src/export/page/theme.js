// Light or dark, as the system has it or as the reader chose. Storage may be forbidden.

const THEME = "splitlock-agent.theme";

function startTheme() {
  const choice = at("theme");
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  let stored = null;
  try {
    stored = localStorage.getItem(THEME);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  if (stored === "light" || stored === "dark") choice.value = stored;
  apply(choice.value);
  choice.addEventListener("change", () => {
    apply(choice.value);
    try {
      localStorage.setItem(THEME, choice.value);
    } catch {
      // As above.
    }
  });
}
