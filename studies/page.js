"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const ink = () => (dark.matches ? "#c3cad3" : "#414953");
  const plots = [...document.querySelectorAll(".plot")];
  const options = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg" },
  };
  for (const plot of plots) {
    const source = plot.querySelector("script");
    const { data, layout } = JSON.parse(source.textContent);
    source.remove();
    layout.font = { ...layout.font, color: ink() };
    Plotly.newPlot(plot, data, layout, options);
  }
  dark.addEventListener("change", () => {
    for (const plot of plots) Plotly.relayout(plot, { "font.color": ink() });
  });
})();
