"use strict";
// Draws every chart of the page again so that it answers to a pointer; without this script the still pictures stay.
const views = new Map();
function chartRows(chart) {
  return chart.values.map((row) => Object.fromEntries(chart.keys.map((key, k) => [key, row[k]])));
}
function drawChart(box) {
  const chart = JSON.parse(box.querySelector("script").textContent);
  const live = document.createElement("div");
  live.className = "live";
  box.append(live);
  const spec = { ...chart.spec, data: { name: "rows", values: chartRows(chart) } };
  const fits = !spec.facet;
  box.classList.add("drawn");
  if (!live.clientWidth) {
    // printed straight away: the still picture serves
    box.classList.remove("drawn");
    live.remove();
    return null;
  }
  if (fits) Object.assign(spec, { width: live.clientWidth, autosize: { type: "fit-x", contains: "padding" } });
  const actions = { export: true, source: false, compiled: false, editor: false };
  return vegaEmbed(live, spec, { ast: true, renderer: "svg", logLevel: 1, actions, downloadFileName: box.dataset.chart }).then(
    (drawn) => {
      views.set(box.dataset.chart, drawn.view);
      if (fits) new ResizeObserver(() => drawn.view.width(live.clientWidth).runAsync()).observe(live);
      const svg = live.querySelector("svg");
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", chart.spec.description);
    },
  );
}
const drawing = Promise.all([...document.querySelectorAll("[data-chart]")].map(drawChart));
const chosenSite = document.querySelector("#site");
function showSite() {
  for (const view of views.values()) {
    if ("site" in view.getState({ signals: (name) => name === "site" }).signals) {
      view.signal("site", chosenSite.value).runAsync();
    }
  }
}
drawing.then(() => {
  document.documentElement.classList.add("live-page");
  if (chosenSite) {
    chosenSite.closest(".choice").hidden = false;
    chosenSite.addEventListener("change", showSite);
    showSite();
  }
});
